"""Settings: one TOML file, every key mirrored by an environment variable `PAGESERVER_<KEY>`."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pageserver.errors import ConfigInvalid
from walproxy.wire.aio import parse_address
from walproxy.wire.errors import MalformedInput

MIB = 1 << 20


def _conninfo(text: str) -> str:
    try:
        conninfo_to_dict(text)
    except ProgrammingError as error:
        raise ValueError(f"not a libpq connection string: {error}") from error
    return text


def _listen(text: str) -> str:
    try:
        parse_address(text)
    except MalformedInput as error:
        raise ValueError(str(error)) from error
    return text


Conninfo = Annotated[str, AfterValidator(_conninfo)]


class Settings(BaseSettings):
    """What the pageserver goes by. Units are in the names."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="PAGESERVER_", extra="forbid", frozen=True, str_strip_whitespace=True
    )

    listen: Annotated[str, AfterValidator(_listen)]
    data_dir: Path
    walproxy: tuple[Conninfo, ...] = Field(min_length=1)
    """Connection strings of the walproxy nodes; any of them will do."""
    primary_conninfo: Conninfo
    """Where the base backup comes from. Used once."""
    slot_name: str = Field(default="pageserver", pattern=r"^[a-z0-9_]{1,63}$")
    lsn_wait_timeout_s: float = Field(default=60.0, ge=0, le=3600)
    """How long a read waits for WAL that is not there yet."""
    layer_wal_bytes_max: int = Field(default=256 * MIB, ge=MIB)
    """The open layer is written to a file once it covers this much WAL: what a restart has to read again."""
    layer_open_bytes_max: int = Field(default=128 * MIB, ge=MIB)
    """… or once it holds this much memory."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment stands over the file."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    def printable(self) -> dict[str, Any]:
        """The settings in force, without passwords."""
        shown = self.model_dump(mode="json")
        shown["walproxy"] = [_without_password(conninfo) for conninfo in self.walproxy]
        shown["primary_conninfo"] = _without_password(self.primary_conninfo)
        return shown


def load_settings(path: Path | None) -> Settings:
    """Read the file, if one is given, and the environment.

    Raises:
        ConfigInvalid: names each key that is wrong, and why.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except OSError as error:
            raise ConfigInvalid("cannot read the configuration", path=path, reason=error.strerror) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigInvalid("the configuration is not toml", path=path, reason=error) from error
    try:
        return Settings(**values)
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise ConfigInvalid(f"configuration: {reasons}") from error


def _without_password(conninfo: str) -> str:
    parts = conninfo_to_dict(conninfo)
    if "password" in parts:
        parts["password"] = "***"  # noqa: S105 - what is shown instead of it
    return make_conninfo("", **parts)
