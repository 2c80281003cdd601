# tokenpool in a container, with a worker as what it runs:
#   docker build -t tokenpool .
#   docker run --init -e TOKENPOOL_POOL=... -e TOKENPOOL_PASSWORD_FILE=/run/password -v "$PWD/password:/run/password:ro" tokenpool
#
# BASE is any Debian or Ubuntu with Python 3.9 or newer and venv; EXTRAS are those of pyproject.toml, with commas between them;
# USER_ID is who the worker is outside too, and who may read such a file.
ARG BASE=python:3.13-slim
FROM ${BASE} AS build
ARG EXTRAS=cwl,function,http,s3,web,zstd
COPY . /src
RUN python3 -m venv /opt/tokenpool \
    && /opt/tokenpool/bin/pip install --no-cache-dir --disable-pip-version-check "/src${EXTRAS:+[${EXTRAS}]}"

FROM ${BASE}
COPY --from=build /opt/tokenpool /opt/tokenpool
# What its worker keeps (finished tokens while the server is away, the cache) is worth a volume.
ARG USER_ID=1000
RUN useradd --non-unique --uid ${USER_ID} --user-group --create-home --home-dir /var/lib/tokenpool --shell /bin/sh tokenpool
USER tokenpool
WORKDIR /var/lib/tokenpool
ENV PATH=/opt/tokenpool/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/var/lib/tokenpool
VOLUME /var/lib/tokenpool
# SIGTERM, what docker stop sends: tokens are given back. SIGUSR1 lets them end first, where there is time for it.
ENTRYPOINT ["tokenpool"]
CMD ["work"]
