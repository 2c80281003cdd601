"""Starts tokenpool from its single file; what was compiled for this Python beforehand is not compiled again."""

import sys

if sys.version_info < (3, 9):  # noqa: UP036 - whoever starts it with an older one must be told
    sys.stderr.write("error: this is Python %d.%d\n" % sys.version_info[:2])  # noqa: UP031
    sys.stderr.write(
        "hint: tokenpool needs Python 3.9 or newer; name one that is here: PYTHON=python3.11 ./startpilot.sh\n"
    )
    sys.exit(2)

import _imp
import marshal
import os
import zipimport
from _frozen_importlib_external import MAGIC_NUMBER

HERE = __loader__.archive


def compiled():
    """Return the modules that were compiled for this Python, by their path in this file; none for other Pythons."""
    try:
        return marshal.loads(__loader__.get_data(HERE + "/compiled/" + MAGIC_NUMBER.hex()))
    except (OSError, EOFError, ValueError, TypeError):
        return {}


class Importer(zipimport.zipimporter):
    """Imports from this file; the source is read only where nothing was compiled for this Python."""

    def get_filename(self, fullname):
        # The inherited one compiles the module to find out.
        end = "/__init__.py" if self.is_package(fullname) else ".py"
        return HERE + "/" + self.prefix.replace(os.sep, "/") + fullname.rpartition(".")[2] + end

    def get_code(self, fullname):
        path = self.get_filename(fullname)
        code = CODE.get(path[len(HERE) + 1 :])
        if code is None:
            return super().get_code(fullname)
        code = marshal.loads(code)
        _imp._fix_co_filename(code, path)
        return code

    if sys.version_info < (3, 10):  # there a zipimporter has only the old protocol

        def find_spec(self, fullname, target=None):
            """Return the spec of a module in this file."""
            from importlib.util import spec_from_loader

            try:
                package = self.is_package(fullname)
            except zipimport.ZipImportError:
                return None
            return spec_from_loader(fullname, self, is_package=package)

        def create_module(self, spec):
            """Let the import system make the module."""

        def exec_module(self, module):
            """Run a module."""
            exec(self.get_code(module.__name__), module.__dict__)


def importer(path):
    """Import what lies in this file; anything else is left to others."""
    if path != HERE and not path.startswith(HERE + "/"):
        raise ImportError(path)
    return Importer(path)


CODE = compiled()
if CODE:
    sys.path_hooks.insert(0, importer)
    sys.path_importer_cache.pop(HERE, None)

if "HOME" not in os.environ and os.path.expanduser("~") == "~":
    os.environ["HOME"] = os.getcwd()  # nodes run jobs as users that nobody has listed

if __name__ == "__main__":
    from tokenpool.cli import main

    sys.exit(main())
