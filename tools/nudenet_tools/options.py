"""Command line options that several tools share."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, TypeAlias, TypedDict

import typer
from rich.console import Console

from container import repository
from nudenet_client import Tls
from nudenet_tools.pictures import drawing, names

Url: TypeAlias = Annotated[str, typer.Option(help="Host and port; default: 127.0.0.1 and GRPC_PORT or HTTP_PORT.")]
GrpcPort: TypeAlias = Annotated[int, typer.Option(envvar="GRPC_PORT", hidden=True)]
HttpPort: TypeAlias = Annotated[int, typer.Option(envvar="HTTP_PORT", hidden=True)]
UseTls: TypeAlias = Annotated[bool, typer.Option("--tls", help="Encrypt, trusting the system's certificates.")]
Ca: TypeAlias = Annotated[Path | None, typer.Option(help="Encrypt, trusting this PEM file.")]
ApiKeyFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="For a proxy: a file with nothing but the API key. Default: $NUDENET_API_KEY.")
]
ConfidenceThreshold: TypeAlias = Annotated[float | None, typer.Option(help="Least confidence, 0 to 1.")]
IouThreshold: TypeAlias = Annotated[float | None, typer.Option(help="Overlap above which the weaker box goes.")]
MaxDetections: TypeAlias = Annotated[int | None, typer.Option(help="Per picture, best first.")]
Classes: TypeAlias = Annotated[str, typer.Option(help="Labels to keep, comma-separated.")]
Priority: TypeAlias = Annotated[int, typer.Option(min=0, help="1 is most urgent; 0: the server's default.")]
Policy: TypeAlias = Annotated[
    str | None, typer.Option(help="Judge by this policy of the server: strict, standard, lenient, your own, default.")
]
CensorClasses: TypeAlias = Annotated[str, typer.Option(help="Labels to censor, comma-separated.")]
CensorStyle: TypeAlias = Annotated[drawing.Style, typer.Option(help="How to censor.")]

CENSORED_BY_DEFAULT = ",".join(drawing.CENSORED_BY_DEFAULT)


class Access(TypedDict):
    """How to reach a server, as `nudenet_client.Client` takes it."""

    tls: Tls | None
    api_key: str | None


LOCAL: Access = {"tls": None, "api_key": None}


def access(tls: bool, ca: Path | None, api_key_file: Path | None) -> Access:
    """What the options above say. A key is no option itself: command lines are seen by everybody on the machine.

    Raises:
        typer.BadParameter: the file cannot be read or is empty, or a key would travel unencrypted.
    """
    key = os.environ.get("NUDENET_API_KEY") or None
    if api_key_file is not None:
        try:
            key = api_key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{api_key_file}: {error}", param_hint="--api-key-file") from error
        if not key:
            raise typer.BadParameter(f"{api_key_file} is empty", param_hint="--api-key-file")
    if key is not None and not (tls or ca):
        raise typer.BadParameter(
            "an API key is sent encrypted only: add --tls or --ca FILE", param_hint="--api-key-file"
        )
    return {"tls": Tls(ca) if tls or ca else None, "api_key": key}


def split_labels(text: str, option: str) -> list[str]:
    """Label names out of a comma-separated option.

    Raises:
        typer.BadParameter: a name that the model does not know.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in repository.labels()]
    if unknown or not names:
        raise typer.BadParameter(
            f"no label {unknown[0] if unknown else text!r}; there are: {', '.join(repository.labels())}",
            param_hint=option,
        )
    return names


def asked_labels(shown: list[str] | None, censored: list[str] | None) -> list[str] | None:
    """Labels to ask the server for; None asks for all. What is to be censored must be found, shown or not."""
    return None if shown is None else sorted({*shown, *(censored or [])})


@contextlib.contextmanager
def said_in_a_line(console: Console, *kinds: type[Exception]) -> Iterator[None]:
    """End the command with status 1 and an error's message, where it is one of `kinds`, instead of a traceback."""
    try:
        yield
    except kinds as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error


def check_outputs(outputs: Iterable[tuple[str, Path]], read: Iterable[str | Path]) -> None:
    """Refuse an output that is one of the files that are read, or another output: one would destroy the other.

    Args:
        outputs: option and file.
        read: paths; what is no file, as an address, harms nobody.

    Raises:
        typer.BadParameter: names the option and the file.
    """
    taken = {_identity(path): "is read, and stays as it is" for path in read}
    for option, path in outputs:
        identity = _identity(path)
        if identity in taken:
            raise typer.BadParameter(f"{names.as_text(str(path))} {taken[identity]}; choose another", param_hint=option)
        taken[identity] = f"is already what {option} writes"


def _identity(path: str | Path) -> object:
    """Equal for all names of one file, be it there or not. Pipes and devices may be written twice."""
    try:
        found = Path(path).stat()
    except OSError:
        return os.path.realpath(path)
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else object()
