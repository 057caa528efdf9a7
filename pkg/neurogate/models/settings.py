"""Where model files are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from neurogate.config import env
from neurogate.errors import ConfigError


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The model cache, shared by every process of a user."""

    model_dir: Annotated[
        str,
        env("NEUROGATE_MODEL_DIR", "Directory of the model files; empty takes neurogate/models in the user's cache."),
    ] = ""
    cache_home: Annotated[str, env("XDG_CACHE_HOME", "The user's cache directory; empty takes ~/.cache.")] = ""

    @property
    def directory(self) -> Path:
        """The cache directory, which need not exist yet.

        Raises ConfigError when nothing is set and this user has no home directory.
        """
        try:
            if self.model_dir:
                return Path(self.model_dir).expanduser().absolute()
            cache = Path(self.cache_home) if self.cache_home else Path.home() / ".cache"
        except RuntimeError as error:
            raise ConfigError(f"NEUROGATE_MODEL_DIR: must be set, since this user has no home ({error})") from error
        return cache.absolute() / "neurogate" / "models"
