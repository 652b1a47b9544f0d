"""The check at a start: surely too large is refused, perhaps too large is warned of, the rest is silent."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from recipes.config import RunConfig
from recipes.fitting import check_memory
from recipes.host_memory import container_limit, free_memory
from recipes.presets import quickstart


def config_of(*, max_tokens: int, micro: int) -> RunConfig:
    config = quickstart()
    return replace(
        config,
        train=replace(config.train, max_tokens=((0, max_tokens),)),
        policy=replace(config.policy, micro_batch_tokens=micro),
        engine=replace(config.engine, max_kv_gib=0.1),
    )


def test_what_fits_says_nothing(tiny_model: Path, caplog: pytest.LogCaptureFixture):
    check_memory(config_of(max_tokens=64, micro=2048), tiny_model, longest_prompt=50)
    assert caplog.records == []


def test_what_may_not_fit_is_warned_of(tiny_model: Path, caplog: pytest.LogCaptureFixture):
    # 10^8 places of a micro-batch take hundreds of GB, but nobody knows how long completions get.
    config = config_of(max_tokens=10**6, micro=10**8)
    with caplog.at_level(logging.WARNING):
        check_memory(config, tiny_model, longest_prompt=50)
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith("if its completions get as long as they may, the run needs about ")
    assert "--policy.micro-batch-tokens" in line or "no setting makes it fit" in line


def test_what_surely_does_not_fit_is_refused(tiny_model: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_model, tmp_path / "huge")
    fields = json.loads((folder / "config.json").read_text())
    fields |= {"hidden_size": 16_384, "num_hidden_layers": 400, "intermediate_size": 65_536}
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"the run needs about .* GiB free: no setting"):
        check_memory(config_of(max_tokens=64, micro=2048), folder, longest_prompt=50)


def test_an_unknown_architecture_passes(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    check_memory(config_of(max_tokens=64, micro=2048), tmp_path, longest_prompt=50)
    assert caplog.records == []


def test_free_memory_is_within_the_machine():
    assert 0 < free_memory() <= container_limit()
