"""Says where the tokens are to scripts in picas' manner: the settings decide, in a sandbox its tokenpool.toml."""

from urllib.parse import unquote, urlsplit

from tokenpool.config import load

_settings = load()
_url = urlsplit(_settings.pool.partition("+")[2])

if _settings.pool.startswith("sqlite:"):
    PICAS_HOST_URL, PICAS_DATABASE, PICAS_USERNAME = _settings.pool, "", None
else:
    PICAS_HOST_URL = f"{_url.scheme}://{_url.netloc.rpartition('@')[2]}"
    PICAS_DATABASE = unquote(_url.path.strip("/"))
    PICAS_USERNAME = unquote(_url.username) if _url.username else None
PICAS_PASSWORD = _settings.password() or (unquote(_url.password) if _url.password else "")
