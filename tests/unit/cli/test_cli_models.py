"""What a worker is told of its model before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from neurogate.cli.models import ensure
from neurogate.engines.settings import EngineSettings
from neurogate.errors import ConfigError
from neurogate.models.settings import ModelSettings


def test_a_model_that_cannot_be_had_is_a_wrong_setting_that_is_named(tmp_path: Path) -> None:
    settings = ModelSettings(model_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="NEUROGATE_MODEL: there is no model 'nope'"):
        ensure(EngineSettings(model="nope"), settings)


def test_engines_without_a_model_file_need_none(tmp_path: Path) -> None:
    ensure(EngineSettings(engine="sim", model="nope"), ModelSettings(model_dir=str(tmp_path)))
