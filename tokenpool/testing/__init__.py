"""The suites that hold every exchangeable part to its interface, shipped for our own parts and for strangers'.

::

    from tokenpool.testing.backends import BackendTests

    class TestMyStore(BackendTests):
        @pytest.fixture
        def backend(self):
            with MyStore("mystore://…", create=True) as backend:
                yield backend
"""
