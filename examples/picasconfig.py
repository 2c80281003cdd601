"""Says where the tokens are: the environment decides, else picas' own configuration file, else one SQLite file here.

To use your own CouchDB for good, replace everything below by four plain assignments.
"""

import os

from tokenpool.picas_config import DEFAULT_CONFIG_PATH, PicasConfig, decrypt_password

stored = {}
# A server that the environment names never gets the password that was stored for another one.
if "PICAS_HOST_URL" not in os.environ and os.path.exists(os.path.expanduser(DEFAULT_CONFIG_PATH)):
    stored = PicasConfig().config

PICAS_HOST_URL = os.environ.get("PICAS_HOST_URL") or stored.get("host_url", "sqlite:///tokenpool.db")
PICAS_DATABASE = os.environ.get("PICAS_DATABASE") or stored.get("database", "mypicasdb")
PICAS_USERNAME = os.environ.get("PICAS_USERNAME") or stored.get("username")
PICAS_PASSWORD = os.environ.get("PICAS_PASSWORD", "")
if not PICAS_PASSWORD and stored:
    PICAS_PASSWORD = decrypt_password(stored["encrypted_password"]).decode()
