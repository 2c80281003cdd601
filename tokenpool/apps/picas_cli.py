"""The program `picas-cli`: write the picas configuration, change its password, print it for scripts."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ..crypto import decrypt_password
from ..errors import BadInput, NotPermitted, TokenpoolError
from ..picas_config import DEFAULT_CONFIG_PATH, DEFAULT_DATABASE, DEFAULT_HOST_URL, PicasConfig, hide_login

_MASK = "***"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are two lines, as everywhere in tokenpool."""

    def error(self, message: str) -> NoReturn:
        sys.exit(_complain(message, f"{self.prog} --help", BadInput.exit_code))


def parse_args() -> argparse.ArgumentParser:
    """Return the parser; the name is picas'."""
    parser = _Parser(
        prog="picas-cli",
        description="Write the picas configuration, change its password, print it for scripts.",
        epilog=f"The configuration is {DEFAULT_CONFIG_PATH}; PICAS_HOST_URL, PICAS_DATABASE, PICAS_USERNAME and "
        "PICAS_ENCRYPTED_PASSWORD win over it.",
    )
    parser.add_argument(
        "--config",
        dest="config_path",
        metavar="PATH",
        default=DEFAULT_CONFIG_PATH,
        help="the configuration file (%(default)s)",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    _add_init(verbs)
    _add_passwd(verbs)
    _add_dump(verbs)
    return parser


def initialize_picas_configuration(parsed_args: argparse.Namespace, *args: Any, **kwargs: Any) -> None:
    """Write a configuration."""
    PicasConfig(parsed_args.config_path, load=False).save_config(parsed_args)


def change_picas_password(parsed_args: argparse.Namespace, *args: Any, **kwargs: Any) -> None:
    """Change the password, on the server and in the configuration."""
    PicasConfig(parsed_args.config_path).change_password(parsed_args)


def dump_picas_config(parsed_args: argparse.Namespace, *args: Any, **kwargs: Any) -> None:
    """Print the configuration as a picasconfig.py; the password only if asked for."""
    path = getattr(parsed_args, "config_path", DEFAULT_CONFIG_PATH)
    output = getattr(parsed_args, "output_file", None)
    config = PicasConfig(path).config
    shown = getattr(parsed_args, "show_password", False)
    password = decrypt_password(config["encrypted_password"]).decode() if shown else _MASK
    host_url = config["host_url"] if shown else hide_login(config["host_url"])
    script = "".join(
        [
            f"# made by picas-cli dump-config from {path}\n",
            "" if shown else "# the password is left out: dump-config --show-password\n",
            f"PICAS_HOST_URL = {host_url!r}\n",
            f"PICAS_DATABASE = {config['database']!r}\n",
            f"PICAS_USERNAME = {config['username']!r}\n",
            f"PICAS_PASSWORD = {password!r}\n",
        ]
    )
    if output:
        _write(os.path.expanduser(output), script)
    else:
        sys.stdout.write(script)
        sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    parser = parse_args()
    args = parser.parse_args(argv)
    if not hasattr(args, "func"):
        parser.print_help(sys.stderr)
        return BadInput.exit_code
    try:
        args.func(args)
    except TokenpoolError as error:
        return _complain(str(error), error.hint, error.exit_code)
    except BrokenPipeError:
        # Who read us has gone; the interpreter must not flush into the broken pipe at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        code = NotPermitted.exit_code if isinstance(error, PermissionError) else TokenpoolError.exit_code
        return _complain(f"{error.strerror or error}: {error.filename}", "look at the path and its rights", code)
    except KeyboardInterrupt:
        return 130
    return 0


def _add_init(verbs: argparse._SubParsersAction[_Parser]) -> None:
    """Add the verb that writes a configuration."""
    init = verbs.add_parser("init", help="write the configuration", description="Write the configuration.")
    init.set_defaults(func=initialize_picas_configuration)
    _add_config(init)
    init.add_argument("--host-url", metavar="URL", default=DEFAULT_HOST_URL, help="where CouchDB is (%(default)s)")
    init.add_argument("--database", metavar="NAME", default=DEFAULT_DATABASE, help="which database (%(default)s)")
    init.add_argument("--username", metavar="NAME", help="which CouchDB account; needed")
    init.add_argument(
        "--password",
        metavar="TEXT",
        help="its password; better leave it out and type it: others on this machine can read options",
    )


def _add_passwd(verbs: argparse._SubParsersAction[_Parser]) -> None:
    """Add the verb that changes the password."""
    about = "Change the password, on the server and in the configuration."
    passwd = verbs.add_parser("passwd", help="change the password", description=about)
    passwd.set_defaults(func=change_picas_password)
    _add_config(passwd)
    # `--password` is what picas' tutorial says, though picas never had it.
    passwd.add_argument(
        "--new-password",
        "--password",
        metavar="TEXT",
        help="the new one; better leave it out and type it: others on this machine can read options",
    )


def _add_dump(verbs: argparse._SubParsersAction[_Parser]) -> None:
    """Add the verb that prints the configuration."""
    about = "Print the configuration as a picasconfig.py, without the password."
    dump = verbs.add_parser("dump-config", help="print it as a picasconfig.py", description=about)
    dump.set_defaults(func=dump_picas_config)
    _add_config(dump)
    dump.add_argument(
        "-o",
        "--output",
        dest="output_file",
        metavar="FILE",
        help="write to FILE, readable by you only, instead of standard output",
    )
    dump.add_argument("--show-password", action="store_true", help="print the password too, decrypted")


def _add_config(verb: argparse.ArgumentParser) -> None:
    """Let --config stand behind the verb as well; SUPPRESS keeps the one before it when it does not."""
    verb.add_argument(
        "--config", dest="config_path", metavar="PATH", default=argparse.SUPPRESS, help="the configuration file"
    )


def _write(path: str, script: str) -> None:
    """Write the script to a file that only its owner can read, or into a pipe or device as it is."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            # One that was there before keeps its old rights unless they are taken away.
            os.fchmod(handle, 0o600)
        file.write(script)
    print(f"wrote {path}", file=sys.stderr)


def _complain(what: str, hint: str, code: int) -> int:
    """Tell the user in two lines; return the exit code."""
    print(f"error: {what}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
