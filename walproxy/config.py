"""Settings: one TOML file, every key mirrored by an environment variable `WALPROXY_<KEY>`."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from walproxy.errors import ConfigInvalid
from walproxy.wire.aio import parse_address
from walproxy.wire.errors import MalformedInput

MIB = 1 << 20


def checked_conninfo(text: str) -> str:
    """The same, if it is a libpq connection string. Raises ValueError."""
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


Conninfo = Annotated[str, AfterValidator(checked_conninfo)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class Settings(BaseSettings):
    """What a node goes by. Units are in the names."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="WALPROXY_", extra="forbid", frozen=True, str_strip_whitespace=True
    )

    name: Name
    """This node, as `members` calls it."""
    listen: Annotated[str, AfterValidator(_listen)]
    http_listen: Annotated[str, AfterValidator(_listen)] | None = None
    """Where `/live` and `/ready` are answered; nowhere if it is not given."""
    data_dir: Path
    members: dict[Name, Conninfo] = Field(default_factory=dict)
    """The whole group at its first start, this node included: how the others reach each of them.

    None in the file of a node that waits to be added. After a change of the members the nodes' own list counts.
    """
    primary_conninfo: Conninfo
    slot_name: str = Field(default="walproxy", pattern=r"^[a-z0-9_]{1,63}$")
    application_name: str = Field(default="walproxy", pattern=r"^[\x20-\x7e]{1,63}$")
    """One for the group: what `synchronous_standby_names` counts."""
    max_wal_size_bytes: int = Field(default=16 * 1024 * MIB, ge=64 * MIB)
    """A node that keeps this much WAL takes no more; the extra file of each promotion does not count."""
    election_timeout_s: float = Field(default=1.0, ge=0.1, le=60)
    """A silent proposer is replaced after once to twice this time."""
    heartbeat_interval_s: float = Field(default=0.2, ge=0.01, le=10)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.members and self.name not in self.members:
            raise ValueError(f"members: does not name this node, {self.name}")
        if self.heartbeat_interval_s * 2 > self.election_timeout_s:
            raise ValueError("heartbeat_interval_s: must be at most half of election_timeout_s")
        return self

    @property
    def group(self) -> dict[str, str]:
        """Whom to ask about the group: its configured members, or else this node."""
        return dict(self.members) or {self.name: own_conninfo(self.listen)}

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
        shown["members"] = {name: without_password(text) for name, text in self.members.items()}
        shown["primary_conninfo"] = without_password(self.primary_conninfo)
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
    # A table in the environment replaces the one in the file; pydantic would mix the two.
    values = {key: value for key, value in values.items() if f"WALPROXY_{key.upper()}" not in os.environ}
    try:
        return Settings(**values)
    except ValidationError as error:
        reasons = "; ".join(
            ": ".join(
                filter(
                    None,
                    (".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")),
                )
            )
            for item in error.errors(include_url=False, include_input=False)
        )
        raise ConfigInvalid(f"configuration: {reasons}") from error


def is_in_environment() -> bool:
    """Whether any key stands there."""
    return any(f"WALPROXY_{key.upper()}" in os.environ for key in Settings.model_fields)


def own_conninfo(listen: str) -> str:
    """How a program on the same machine reaches a node that listens there."""
    address = parse_address(listen)
    if address.path:
        folder, _, file = address.path.rpartition("/")
        return make_conninfo("", host=folder, port=file.rpartition(".")[2], user="walproxy")
    return make_conninfo("", host=address.host, port=address.port, user="walproxy")


def without_password(conninfo: str) -> str:
    parts = conninfo_to_dict(conninfo)
    if "password" in parts:
        parts["password"] = "***"  # noqa: S105 - what is shown instead of it
    return make_conninfo("", **parts)
