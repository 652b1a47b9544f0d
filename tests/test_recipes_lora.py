"""A run with adapters from the command line to the final folder, stopped and continued; what is refused."""

import json
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, StableLmConfig, StableLmForCausalLM

from benchmarks.kill import differences
from recipes import launch
from recipes.cli import guarded, read_config, split_command, start
from recipes.config import from_yaml, to_yaml
from recipes.preflight import check_config
from recipes.presets import PRESETS
from recipes.progress import Progress
from rl import policy as rl_policy
from rl.checkpoint import load_checkpoint
from rl.lora import LoraSettings, adapter_size
from rl.optimizer import OptimizerConfig
from rl.policy import Policy
from rollouts import adapters

KEPT: list[Any] = []  # vLLM's engines: freeing one would tear down the state of the others
LORA = "--policy.lora.rank 4 --policy.lora.alpha 10"
FIELDS = f"""--no-best-prompt --train.num-rounds 2 --train.problems-per-round 2 --train.group-size 4
    --train.updates-per-round 2 --train.max-tokens 0 8 --train.save-every 1 --train.keep-last 2
    --loss.kl-coefficient 0.01 --loss.reference-every 2 --optimizer.learning-rate 1e-2
    --engine.dtype float32 --policy.dtype float32
    --test.num-problems 2 --test.num-samples 2 --test.max-tokens 8 --validation.max-tokens 8 {LORA}"""


def run(*words: str) -> int:
    return guarded(lambda: start("r1_zero", "quickstart", words))


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory):
    """One run that was never stopped, and one that died in its second round's update and went on."""
    base = tmp_path_factory.mktemp("runs")
    build, phase, lines, seen = launch.build, Progress.phase, [], []
    words = ["--model", str(tiny_model), *FIELDS.split(), "--run-folder"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "build", lambda *args: KEPT.append(build(*args)) or KEPT[-1])
        patch.setattr(launch, "print", lambda *said, **how: lines.append(said[0]), raising=False)

        def watched(progress: Progress, name: str) -> None:
            phase(progress, name)
            seen.append((name, KEPT[-1].engine.version if KEPT else None))

        with patch.context() as watching:
            watching.setattr(Progress, "phase", watched)
            assert run(*words, f"{base}/never") == 0

        def deadly(progress: Progress, name: str) -> None:
            phase(progress, name)
            if name == "update" and (base / "died/checkpoints/round-000001").exists():
                raise KeyboardInterrupt

        with patch.context() as dying:
            dying.setattr(Progress, "phase", deadly)
            assert run(*words, f"{base}/died") == 130
        assert not (base / "died" / "final").exists()
        assert run("--resume", f"{base}/died") == 0
    return base / "never", base / "died", lines, seen


def test_a_stopped_run_continues_bit_for_bit(runs):
    never, died = runs[:2]
    assert differences(never, died) == []
    for kind in ("master", "exp_avg", "exp_avg_sq", "reference"):
        left, right = (
            load_file(folder / "checkpoints" / "round-000002" / f"{kind}.safetensors")
            for folder in (never, died)
        )
        assert all(torch.equal(left[n], right[n]) for n in left | right), kind
    final = [(folder / "final" / "model.safetensors").read_bytes() for folder in (never, died)]
    assert final[0] == final[1]


def test_it_is_gated_with_the_new_adapter_and_with_a_random_one(runs):
    gates = [line for line in runs[2] if line.startswith("gate")]
    assert [line.partition(":")[0] for line in gates] == ["gate", "gate, random adapter"] * 3
    for line in gates:
        words = line.replace(",", "").replace(";", "").split()
        assert float(words[words.index("engine") + 1]) < 1e-4
        assert float(words[words.index("to") + 2]) < 1e-4  # engine to trainer


def test_base_and_result_are_measured_with_their_own_adapters(runs):
    """Not with the gate's random one, nor with one of a round before."""
    versions = {name: version for name, version in runs[3] if name.startswith("evaluate")}
    assert versions == {"evaluate base": 0, "evaluate trained": 4}


def test_every_round_was_sampled_from_its_own_adapter(runs):
    from rollouts.records import read_groups

    versions = [
        {span[0] for g in read_groups(path) for r in g.rollouts for span in r.versions}
        for path in sorted((runs[0] / "rollouts").glob("round-*"))
    ]
    assert versions == [{0}, {2}]
    rows = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    assert all(row["update/trained_tokens"] > 0 for row in rows)


def test_a_checkpoint_holds_adapters_only_and_the_final_folder_is_merged(runs, tiny_model: Path):
    folder = runs[0]
    config = from_yaml((folder / "config.yaml").read_text(), "config.yaml")
    assert config.policy.lora == LoraSettings(rank=4, alpha=10.0)
    path = folder / "checkpoints" / "round-000002"
    # The base is the reference until round 1, two updates later, refreshes it.
    assert not (folder / "checkpoints" / "round-000001" / "reference.safetensors").exists()
    for kind in ("master", "exp_avg", "exp_avg_sq", "reference"):
        names = set(load_file(path / f"{kind}.safetensors"))
        assert len(names) == 28 and all(".lora_" in name for name in names)
    policy = Policy(tiny_model, config.policy, OptimizerConfig())
    load_checkpoint(path, policy)
    merged = load_file(folder / "final" / "model.safetensors")
    base = load_file(tiny_model / "model.safetensors")
    assert merged.keys() == base.keys()
    changed = {name for name in base if not torch.equal(merged[name], base[name].float())}
    assert len(changed) == 14
    name = "model.layers.1.mlp.up_proj"
    a, b = (policy.optimizer.masters[f"{name}.lora_{x}.default.weight"] for x in "AB")
    expected = base[f"{name}.weight"].float() + 10 / 4 * b @ a
    assert torch.allclose(merged[f"{name}.weight"], expected, atol=1e-6)
    plain = AutoModelForCausalLM.from_pretrained(folder / "final", dtype=torch.float32)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        gap = plain(ids).logits - policy.float32_copy()(ids).logits
    assert gap.abs().max() < 1e-4


# The command line, and what is refused.


def config_of(line: str):
    return read_config(split_command(line.split(), "quickstart", "quickstart", list(PRESETS)))


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("", "all-linear"),
        ("--policy.lora.target-modules all-linear", "all-linear"),
        ("--policy.lora.target-modules q_proj", "q_proj"),
        ("--policy.lora.target-modules q_proj v_proj", ("q_proj", "v_proj")),
    ],
)
def test_adapters_are_fields_like_others(words: str, wanted):
    config = config_of(f"--policy.lora.rank 8 {words}")
    assert config.policy.lora.rank == 8
    found = config.policy.lora.target_modules
    assert found in (wanted, (wanted,))
    assert from_yaml(to_yaml(config), "f") == config
    check_config(config)
    assert config_of("").policy.lora == LoraSettings()


def test_adapters_in_a_file():
    text = "policy: {lora: {rank: 8, target_modules: [q_proj, v_proj]}}"
    lora = from_yaml(text, "f").policy.lora
    assert lora == LoraSettings(rank=8, target_modules=("q_proj", "v_proj"))
    with pytest.raises(
        ValueError, match=r"unknown field 'policy.lora.rnak'; did you mean 'policy.l"
    ):
        from_yaml("policy: {lora: {rnak: 8}}", "f")


def test_settings_are_refused_with_the_config():
    config = PRESETS["quickstart"]()
    lora = LoraSettings(rank=8, dropout=0.1)
    with pytest.raises(ValueError, match=r"policy.lora.dropout is 0.1: use 0"):
        check_config(replace(config, policy=replace(config.policy, lora=lora)))


@pytest.fixture
def refused(capfd, tmp_path: Path, monkeypatch):
    """The one line that refuses a run before anything is loaded or written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rl_policy, "Policy", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setattr(launch, "load_data", lambda *_: pytest.fail("data were loaded"))

    def action(model: Path, words: str) -> str:
        capfd.readouterr()
        with open(2, "w", buffering=1, closefd=False) as errors, redirect_stderr(errors):
            assert run("--model", str(model), *words.split()) == 2
        line = capfd.readouterr().err
        assert line.count("\n") == 1 and not (tmp_path / "runs").exists()
        return line.removeprefix("error: ").strip()

    return action


def test_targets_and_engines_are_refused_before_anything_heavy(refused, tiny_model, tmp_path):
    linear = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert refused(tiny_model, "--policy.lora.rank 4 --policy.lora.target-modules q_proj W_q") == (
        "policy.lora.target_modules names 'W_q', which is no linear layer of this model (its head left "
        f"out); it has {linear}"
    )
    assert refused(tiny_model, "--policy.lora.rank -3").startswith("policy.lora.rank is -3: use 1")
    assert refused(tiny_model, "--policy.lora.alpha 16").startswith("policy.lora.rank is 0, which")
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 32}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    other = tmp_path / "stablelm"
    StableLmForCausalLM(StableLmConfig(**sizes, **heads)).save_pretrained(other)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (other / name).write_bytes((tiny_model / name).read_bytes())
    assert refused(other, "--policy.lora.rank 4") == (
        "policy.lora.rank is 4, but vLLM cannot apply adapters to StableLmForCausalLM: train its full weights"
    )


def test_room_is_asked_for_adapters_only(tiny_model: Path, monkeypatch, tmp_path: Path):
    from recipes import preflight

    config = config_of("--policy.lora.rank 4 --train.keep-last 1")
    asked = []
    monkeypatch.setattr(
        preflight, "checkpoint_bytes", lambda count, **kinds: asked.append(count) or 0
    )
    preflight.check_room(config, tiny_model, tmp_path / "run")
    preflight.check_room(PRESETS["quickstart"](), tiny_model, tmp_path / "run")
    assert asked == [adapter_size(tiny_model, config.policy.lora), 328_704]
    # 2 layers x rank 4 x (in + out) of q 128+128, k and v 128+64, o 128+128, three of 128+256.
    assert asked[0] == 2 * 4 * (256 + 2 * 192 + 256 + 3 * 384)


def test_an_engine_whose_adapters_add_nothing_is_refused(tiny_model, tmp_path, capfd, monkeypatch):
    """The new adapter is zero, so that only the random one shows it."""
    monkeypatch.setattr(adapters.OneAdapter, "add_lora_linear", lambda *_, **__: None)
    build = launch.build
    monkeypatch.setattr(launch, "build", lambda *args: KEPT.append(build(*args)) or KEPT[-1])
    words = ["--model", str(tiny_model), *FIELDS.split(), "--run-folder", str(tmp_path / "run")]
    assert run(*words) == 2
    assert (
        "error: refused to start: under a random adapter, logprobs: the engine is off float32"
        in capfd.readouterr().err
    )
