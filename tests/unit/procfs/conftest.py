from __future__ import annotations

from pathlib import Path

import pytest
from support.actors import build_actor


@pytest.fixture(scope="session")
def actor_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled actor program."""
    return build_actor(tmp_path_factory.mktemp("actor") / "actor")
