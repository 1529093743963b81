"""The adapters by name. An adapter is a module with a ``build(case, probe)``.

    lisa                   a shipped one: a line in `ADAPTERS`
    my-model               one that an installed package registers under the entry-point group
                           ``lisabench.adapters``
    models/my_model.py     a file; see `adapter_files`
    my_package.model:build a module that can be imported, and the name of its builder

The annotation of `case` names the frozen dataclass of the adapter's settings. A suite's settings
are checked against it before anything is loaded, so the module should be cheap to import, and
import torch inside `build`.
"""

import dataclasses
import hashlib
import importlib
import os
import signal
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, cast

from pydantic import TypeAdapter, ValidationError

from ..harness import terminal
from ..harness.contract import Adapter
from ..harness.errors import Interrupted, LisabenchError, UsageError, unknown, validation_problems
from ..harness.text import LONGEST_REASON, one_line
from . import adapter_files

Build = Callable[..., Adapter]

ADAPTERS = {
    "lisa": "lisabench.models.adapters.lisa:build",
    "fake": "lisabench.models.adapters.fake:build",
    "whole-image": "lisabench.models.adapters.trivial:whole_image",
    "centre-box": "lisabench.models.adapters.trivial:centre_box",
    "empty": "lisabench.models.adapters.trivial:empty",
}
GROUP = "lisabench.adapters"


class AdapterLoadError(UsageError):
    """The code of an adapter is there, but it raises or exits while it is imported."""


@dataclasses.dataclass(frozen=True)
class NotLoaded:
    """The config of a case whose adapter cannot be loaded.

    Attributes:
        reason: why, in one line.
    """

    reason: str

    def opened(self) -> NoReturn:
        """Refuse to be a config.

        Raises:
            RuntimeError: always. In a worker, that is the status of the case.
        """
        raise RuntimeError(self.reason)


def names() -> list[str]:
    """Return every adapter that a suite can name, those of installed packages included."""
    return sorted({*ADAPTERS, *_of_other_packages()})


def is_place(name: str) -> bool:
    """Return whether an adapter is named by its file or its module, and not registered."""
    return adapter_files.is_file(name) or ":" in name


@cache
def _of_other_packages() -> dict[str, str]:
    """Return where other packages' adapters are. Cached: it searches all that is installed."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def find(name: str) -> Build:
    """Return the builder of an adapter.

    Args:
        name: one of `names`, a file (``path/file.py``), or a module and its builder
            (``module:build``).

    Raises:
        UsageError: there is no such adapter.
        AdapterLoadError: its code raises while it is imported.
    """
    module = _module_of(name)
    attribute = adapter_files.BUILD
    if not adapter_files.is_file(name):
        attribute = _place_of(name).partition(":")[2]
    build: Any = getattr(module, attribute, None)
    if not callable(build):
        raise UsageError(
            f"{_named(name)}: it defines no function {attribute!r}; an adapter is made by "
            "build(case, probe)"
        )
    return cast(Build, build)


def preload(name: str) -> tuple[str, ...]:
    """Return the modules that a builder will import: its module's ``PRELOAD``, if it has one.

    It is read of shipped adapters only: a module that raises something while the server of worker
    processes imports it would end the server, and with it all cases.
    """
    if name not in ADAPTERS:
        return ()
    return getattr(_module_of(name), "PRELOAD", ())


def source_sha256(name: str) -> str | None:
    """Return the SHA-256 of the file that an adapter is loaded from.

    It is None for a shipped adapter, which is of the version of lisabench, and for a module without
    a file.

    Raises:
        UsageError: there is no such adapter, or it cannot be loaded.
    """
    if name in ADAPTERS:
        return None
    if adapter_files.is_file(name):
        with _importing(name):
            return adapter_files.load(name).sha256
    path = file_of(name)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else None


def file_of(name: str) -> Path | None:
    """Return the file that an adapter is loaded from; None for a module without a file.

    Raises:
        UsageError: there is no such adapter, or it cannot be loaded.
    """
    if adapter_files.is_file(name):
        with _importing(name):
            return adapter_files.place(name)
    path = getattr(_module_of(name), "__file__", None)
    return Path(path) if path else None


def _module_of(name: str) -> ModuleType:
    """Import the module of an adapter.

    Raises:
        UsageError: there is no such adapter, or it cannot be loaded.
    """
    if not isinstance(name, str):
        raise unknown("adapter", name, names())
    adapter_files.import_from_worktree()
    if adapter_files.is_file(name):
        with _importing(name):
            return adapter_files.load(name).module
    module = _place_of(name).partition(":")[0]
    with _importing(name):
        return importlib.import_module(module)


def _place_of(name: str) -> str:
    """Return the module and the builder of an adapter that is not named by its file."""
    # Our own first: with a name of ours, other packages are not searched.
    if name in ADAPTERS:
        return ADAPTERS[name]
    place = _of_other_packages().get(name)
    if place is not None:
        return place
    if ":" in name:
        return name
    raise UsageError(
        f"{unknown('adapter', name, names())}; or name a file that ends in "
        f"{adapter_files.SUFFIX}, or MODULE:BUILD"
    )


def _named(name: str) -> str:
    """Return what messages call an adapter: its name, and where it is registered, if it is."""
    if adapter_files.is_file(name) or _place_of(name) == name:
        return f"adapter {name!r}"
    return f"adapter {name!r} is registered as {_place_of(name)!r}"


@contextmanager
def _importing(name: str) -> Iterator[None]:
    """Make one line of whatever the import of an adapter raises, also if it ends the program.

    Raises:
        UsageError: there is no such file or module.
        AdapterLoadError: its code raises something.
    """
    try:
        with terminal.code_of_others(), _exits_raised():
            yield
    except BaseException as error:
        if _is_of_the_user(error):
            raise
        # The message of an error of ours says all, and its class nothing to a user.
        if isinstance(error, LisabenchError):
            text = str(error)
        else:
            # Not str(error), which an exception may not survive.
            text = "".join(traceback.format_exception_only(error))
        reason = one_line(text, LONGEST_REASON)
        kind = UsageError if _is_absent(name, error) else AdapterLoadError
        raise kind(f"{_named(name)}: it cannot be loaded ({reason})") from error


@contextmanager
def _exits_raised() -> Iterator[None]:
    """Have `os._exit` raise in the block, as `sys.exit` does.

    It would end the command at once, and with an exit code of the adapter's: 0 would say that all
    was measured.
    """
    exit_at_once, process = os._exit, os.getpid()

    def raise_exit(status: int) -> NoReturn:
        if os.getpid() != process:  # a child that the code of the adapter has forked
            exit_at_once(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = raise_exit
    try:
        yield
    finally:
        os._exit = exit_at_once


def _is_of_the_user(error: BaseException) -> bool:
    """Return whether an exception is an interrupt of the user, and not one that code raises."""
    if isinstance(error, Interrupted):  # as the command line makes one of a signal
        return True
    by_python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return by_python and isinstance(error, KeyboardInterrupt)


def _is_absent(name: str, error: BaseException) -> bool:
    """Return whether the file or module of an adapter is not there, as after a typing error."""
    if isinstance(error, adapter_files.NoSuchFileError):
        return True
    if adapter_files.is_file(name) or not isinstance(error, ModuleNotFoundError):
        return False
    module = _place_of(name).partition(":")[0]
    return error.name is not None and f"{module}.".startswith(f"{error.name}.")


def case_type(name: str) -> type:
    """Return the frozen dataclass of an adapter's settings.

    Raises:
        UsageError: there is no such adapter, or its `build` does not say.
    """
    build = find(name)
    with _importing(name):
        annotation = typing.get_type_hints(build).get("case")
    if not dataclasses.is_dataclass(annotation):
        raise UsageError(
            f"adapter {name!r}: its build must annotate `case` with the dataclass of its settings"
        )
    return typing.cast(type, annotation)


def settings_of(name: str) -> dict[str, Any]:
    """Return an adapter's settings by name, with the default of each.

    The default is `dataclasses.MISSING` where a setting must be given.
    """
    return {field.name: field.default for field in dataclasses.fields(case_type(name))}


def make_case(name: str, settings: Mapping[str, Any], for_training: bool = False) -> Any:
    """Return a value of the adapter's settings dataclass.

    If the dataclass has a class method ``filled``, that adds what the given settings imply. If it
    has a method ``check_weights``, that refuses weights which cannot be used with the settings.

    Args:
        name: of the adapter.
        settings: that are given.
        for_training: the weights are a start of a training, which may make parts of the model anew.

    Raises:
        UsageError: a setting is unknown, or has a value that it cannot take; or the weights do not
            fit.
    """
    settings_type = case_type(name)
    known_settings = settings_of(name)
    for setting in settings:
        if setting not in known_settings:
            raise unknown(f"setting of {name!r}", setting, known_settings)
    filled = settings
    fill_in = getattr(settings_type, "filled", None)
    try:
        if fill_in is not None:
            filled = fill_in(settings)
        case = TypeAdapter(settings_type).validate_python(dict(filled))
        if not for_training and hasattr(case, "check_weights"):
            case.check_weights()
    except LisabenchError:
        raise
    except ValidationError as error:
        problems = validation_problems(error, with_values=True)
        raise UsageError(f"settings of adapter {name!r}: {problems}") from error
    except Exception as error:  # of code outside: `filled`, or a check of the dataclass's own
        reason = one_line(f"{type(error).__name__}: {error}", LONGEST_REASON)
        raise UsageError(f"settings of adapter {name!r}: {reason}") from error
    return case


def complete(case: Any, **known_later: Any) -> Any:
    """Return a case with what is known only where it is run, such as the device.

    Args:
        case: a value of an adapter's settings dataclass.
        known_later: values by the setting's name; those that this adapter does not have are
            ignored.
    """
    settings = {field.name for field in dataclasses.fields(case)}
    values = {name: value for name, value in known_later.items() if name in settings}
    return dataclasses.replace(case, **values)
