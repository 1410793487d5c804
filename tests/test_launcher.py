"""What accelerate, torchrun and DeepSpeed make of a launch: how many GPUs, and what is divided between them or leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from preflight import document
from preflight.adapters import flags, launcher
from preflight.adapters.conversions import flag, whole
from preflight.adapters.draft import Draft
from preflight.adapters.run_values import place
from preflight.adapters.table import Field
from preflight.finding import ConfigError

TABLE = flags.flag_table(
    unread="{key} is not read",
    fields=(
        Field(path="train.batch", keys=("batch_size",), convert=whole()),
        Field(path="train.lora.rank", keys=("lora_rank",), convert=whole(), default=4, source="a test"),
        Field(path="train.checkpointing", keys=("gradient_checkpointing",), convert=flag()),
        Field(path="paths.output", keys=("output_dir",), convert=place()),
        *launcher.FIELDS,
    ),
    no_effect=("learning_rate", "learning_schedule"),
)


def draft(folder: Path, command: str, *settings: str, **files: Any) -> tuple[Draft, launcher.Launched]:
    for name, data in files.items():
        text = json.dumps(data) if name == "ds" else yaml.safe_dump(data)
        (folder / f"{name}.{'json' if name == 'ds' else 'yaml'}").write_text(text, encoding="utf-8")
    (folder / "scripts").mkdir(exist_ok=True)
    path = folder / "scripts" / "train.sh"
    path.write_text(command + "\n", encoding="utf-8")
    read = launcher.including(document.read(str(path), overrides=settings), deepspeed=("--deepspeed",))
    run = flags.draft(read, TABLE)
    return run, launcher.settle(run)


def parallel(run: Draft) -> dict[str, Any]:
    return {path: value for path, value in run.settled.items() if path.startswith(("parallel.", "offload.")) and value is not False}


@pytest.mark.parametrize(
    ("command", "grows"),
    [
        ("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True torchrun t.py", True),
        ("export PYTORCH_ALLOC_CONF=max_split_size_mb:128,expandable_segments:True\ntorchrun t.py", True),
        ("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False torchrun t.py", False),
        ("torchrun t.py", False),
    ],
)
def test_segments_that_grow_are_asked_for_in_the_environment(tmp_path: Path, command: str, *, grows: bool) -> None:
    run, _ = draft(tmp_path, command)
    assert run.settled.get("hardware.expandable_segments", False) is grows


@pytest.mark.parametrize(
    ("command", "gpus", "nodes", "strategy"),
    [
        ("python t.py", 1, None, "none"),
        ("torchrun t.py", 1, None, "none"),
        ("torchrun --nproc_per_node 4 t.py", 4, None, "ddp"),
        ("torchrun --nproc-per-node=4 --nnodes=2 t.py", 8, 2, "ddp"),
        ("torchrun --nproc_per_node 4 --nnodes 1:3 t.py", 12, 3, "ddp"),
        ("CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc_per_node gpu t.py", 2, None, "ddp"),
        ("CUDA_VISIBLE_DEVICES=0,1,2 accelerate launch t.py", 3, None, "ddp"),
        ("accelerate launch t.py", 1, None, "none"),
        ("accelerate launch --num_processes 4 --num_machines 2 t.py", 4, 2, "ddp"),
        ("accelerate launch --multi-gpu --num-processes 2 t.py", 2, None, "ddp"),
        ("accelerate launch --gpu_ids 0,1 t.py", 2, None, "ddp"),
        ("deepspeed --num_gpus 2 --num_nodes 2 t.py", 4, 2, "ddp"),
        ("deepspeed --include localhost:0,1,3 t.py", 3, None, "ddp"),
        ("deepspeed --include worker-0:0,1@worker-1:2 t.py", 3, None, "ddp"),
        ("#SBATCH --nodes=2\n#SBATCH --gres=gpu:a100:8\ntorchrun --nnodes $SLURM_NNODES --nproc_per_node $SLURM_GPUS_ON_NODE t.py",
         16, 2, "ddp"),
    ],
)  # fmt: skip
def test_the_processes_are_counted(tmp_path: Path, command: str, gpus: int, nodes: int | None, strategy: str) -> None:
    run, launched = draft(tmp_path, command)
    assert (launched.processes, run.get("parallel.gpus"), run.get("parallel.nodes")) == (gpus, gpus, nodes)
    assert run.get("parallel.strategy") == strategy


def test_the_number_of_gpus_may_be_set(tmp_path: Path) -> None:
    assert draft(tmp_path, "accelerate launch t.py", "hardware.gpus=8")[1].processes == 8
    assert draft(tmp_path, "accelerate launch --num_processes $N t.py", "launcher.num_processes=8")[1].processes == 8


def test_accelerates_file_says_what_its_flags_do_not(tmp_path: Path) -> None:
    config = {"distributed_type": "DEEPSPEED", "num_processes": 4, "mixed_precision": "bf16",
              "deepspeed_config": {"zero_stage": 3, "offload_optimizer_device": "cpu", "offload_param_device": "cpu",
                                   "gradient_accumulation_steps": 8, "zero3_init_flag": False}}  # fmt: skip
    command = "accelerate launch --config_file acc.yaml --num_processes 2 t.py"
    run, launched = draft(tmp_path, command, acc=config)
    assert parallel(run) == {
        "parallel.gpus": 2,
        "parallel.strategy": "zero3",
        "offload.optimizer": True,
        "offload.parameters": True,
    }
    assert (launched.mixed_precision, launched.accumulation, launched.engine, launched.zero_init) == ("bf16", 8, True, False)
    assert run.origins["parallel.strategy"] == "accelerate.deepspeed_config.zero_stage"
    place_ = run.document.position("accelerate.deepspeed_config.zero_stage")
    assert place_ is not None
    assert Path(place_.file or "").name == "acc.yaml"


def test_deepspeeds_file_wins_over_accelerates_own_words_unless_it_leaves_them_open(tmp_path: Path) -> None:
    config = {"distributed_type": "DEEPSPEED", "num_processes": 2, "deepspeed_config": {"deepspeed_config_file": "ds.json"}}
    zero = {"stage": 2, "reduce_bucket_size": 5e7, "overlap_comm": True, "contiguous_gradients": "auto",
            "offload_optimizer": {"device": "cpu"}}  # fmt: skip
    ds = {"bf16": {"enabled": True}, "zero_optimization": zero, "gradient_accumulation_steps": "auto"}
    run, launched = draft(tmp_path, "accelerate launch --config_file acc.yaml t.py", acc=config, ds=ds)
    assert parallel(run) == {
        "parallel.gpus": 2,
        "parallel.strategy": "zero2",
        "parallel.zero.overlap_comm": True,
        "parallel.zero.reduce_bucket_size": 50_000_000,
        "offload.optimizer": True,
    }
    assert (launched.mixed_precision, launched.accumulation) == ("bf16", None)


def test_a_trainers_own_flag_may_name_deepspeeds_file(tmp_path: Path) -> None:
    ds = {"zero_optimization": {"stage": 1}, "fp16": {"enabled": True}, "train_micro_batch_size_per_gpu": 2}
    run, launched = draft(tmp_path, "deepspeed --num_gpus 4 t.py --deepspeed ds.json", ds=ds)
    assert run.get("parallel.strategy") == "zero1"
    assert (launched.engine, launched.mixed_precision, launched.batch) == (True, "fp16", 2)


#: What accelerate tells FSDP of its own accord.
FIRST = {
    "parallel.strategy": "fsdp",
    "parallel.fsdp_version": 1,
    "parallel.backward_prefetch": "none",
    "parallel.use_orig_params": True,
    "parallel.wrap": "whole",
}


@pytest.mark.parametrize(
    ("fsdp", "expected"),
    [
        ({}, {**FIRST, "parallel.reshard": True}),
        ({"fsdp_sharding_strategy": "SHARD_GRAD_OP"}, FIRST),
        ({"fsdp_sharding_strategy": 1}, {**FIRST, "parallel.reshard": True}),
        ({"fsdp_sharding_strategy": "NO_SHARD"}, {"parallel.strategy": "ddp"}),
        ({"fsdp_sharding_strategy": "HYBRID_SHARD"}, {**FIRST, "parallel.reshard": True, "parallel.shard": 4}),
        ({"fsdp_version": 1, "fsdp_reshard_after_forward": False}, {**FIRST, "parallel.reshard": True}),
        (
            {"fsdp_version": 2, "fsdp_reshard_after_forward": False},
            {"parallel.strategy": "fsdp", "parallel.fsdp_version": 2, "parallel.wrap": "whole"},
        ),
        ({"offload_params": True}, {**FIRST, "parallel.reshard": True, "offload.parameters": True}),
        ({"fsdp_auto_wrap_policy": "NO_WRAP"}, {**FIRST, "parallel.reshard": True}),
        ({"auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}, {**FIRST, "parallel.reshard": True, "parallel.wrap": "blocks"}),
        (
            {"fsdp_backward_prefetch": "BACKWARD_PRE", "fsdp_forward_prefetch": True, "fsdp_use_orig_params": False},
            {
                "parallel.strategy": "fsdp",
                "parallel.fsdp_version": 1,
                "parallel.backward_prefetch": "pre",
                "parallel.forward_prefetch": True,
                "parallel.reshard": True,
                "parallel.wrap": "whole",
            },
        ),
    ],
)
def test_fsdp_is_as_its_strategy_says(tmp_path: Path, fsdp: dict[str, Any], expected: dict[str, Any]) -> None:
    config = {"distributed_type": "FSDP", "num_processes": 8, "num_machines": 2, "fsdp_config": fsdp}
    run, _ = draft(tmp_path, "accelerate launch --config_file ../acc.yaml t.py", acc=config)
    assert parallel(run) == {"parallel.gpus": 8, "parallel.nodes": 2, **expected}


@pytest.mark.parametrize("accumulates", [True, False])
def test_fsdp_keeps_gradients_whole_where_accelerate_accumulates(tmp_path: Path, *, accumulates: bool) -> None:
    run, _ = draft(tmp_path, "accelerate launch --use_fsdp --num_processes 2 t.py")
    assert "parallel.no_sync" not in run.settled
    run.settled = {path: value for path, value in run.settled.items() if not path.startswith("parallel.")}
    run.settled["train.accumulation"] = 4
    launcher.settle(run, accumulates=accumulates)
    assert run.get("parallel.no_sync", False) is accumulates


def test_fsdp_by_flags_computes_and_reduces_in_the_mixed_precision(tmp_path: Path) -> None:
    command = "accelerate launch --use_fsdp --fsdp_version 2 --mixed_precision bf16 --num_processes 2 t.py"
    run, launched = draft(tmp_path, command + " --gradient_checkpointing")
    assert (run.get("parallel.compute"), run.get("parallel.reduce"), launched.mixed_precision) == ("bf16", "bf16", "bf16")
    assert run.origins["parallel.strategy"] == "launcher.--use_fsdp"
    assert (run.get("parallel.fsdp_version"), run.origins["parallel.fsdp_version"]) == (2, "launcher.--fsdp_version")
    assert "parallel.backward_prefetch" not in run.settled


def test_a_file_that_the_script_writes_itself_is_read(tmp_path: Path) -> None:
    script = (
        "cat > acc.yaml <<EOF\ndistributed_type: MULTI_GPU\nnum_processes: 4\nEOF\naccelerate launch --config_file acc.yaml t.py"
    )
    run, launched = draft(tmp_path, script)
    assert launched.processes == 4
    assert run.document.position("accelerate.num_processes") == (3, 1, None)


def test_a_file_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    run, _ = draft(tmp_path, "accelerate launch --config_file none.yaml t.py")
    assert [(finding.id, finding.severity, finding.line) for finding in run.findings] == [("file-not-read", "warning", 1)]


# ---- a program's flags


def test_flags_are_read_by_any_unambiguous_beginning_and_written_as_the_user_has_them(tmp_path: Path) -> None:
    run, _ = draft(tmp_path, "python t.py --batch 8 --lora-rank=16 --gradient_checkpointing --learning 3 --nothing 1")
    assert (run.get("train.batch"), run.get("train.lora.rank"), run.get("train.checkpointing")) == (8, 16, True)
    assert [finding.message for finding in run.findings] == [
        "--learning is not read; did you mean --learning_rate?",
        "--nothing is not read.",
    ]
    spelled = run.reading().spell({"train.batch": 4, "train.lora.rank": 8, "train.checkpointing": False})
    assert spelled == {"--batch": 4, "--lora-rank": 8, "--gradient_checkpointing": False}
    assert draft(tmp_path, "python t.py")[0].reading().spell({"train.batch": 4}) == {"--batch_size": 4}


def test_a_slip_is_taken_for_a_key_of_its_own_file(tmp_path: Path) -> None:
    command = "accelerate launch --config_file acc.yaml t.py --train_batch_size 8 --num_proceses 2"
    run, _ = draft(tmp_path, command, acc={"num_machines": 1, "num_proceses": 2, "outputt_dir": "x"})
    assert {finding.message for finding in run.findings} == {
        "--train_batch_size is not read; did you mean --batch_size?",
        "--num_proceses is not read.",
        "accelerate.num_proceses is not read; did you mean accelerate.num_processes?",
        "accelerate.outputt_dir is not read.",
    }


def test_set_speaks_of_a_flag_however_it_is_spelled(tmp_path: Path) -> None:
    for setting in ("lora_rank=8", "--lora_rank=8", "--lora-rank=8"):
        run, _ = draft(tmp_path, "python t.py --lora_rank $RANK", setting)
        assert (run.get("train.lora.rank"), run.document.data) == (8, {"--lora_rank": 8})


def test_what_only_the_machine_knows_is_an_error_where_memory_depends_on_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        draft(tmp_path, "python t.py --lora_rank $RANK --output_dir $OUT --gradient_checkpointing $MORE --learning_rate $LR $REST")
    assert [(finding.id, finding.severity, finding.key) for finding in caught.value.findings] == [
        ("unresolved-variable", "error", "--lora_rank"),
        ("unresolved-variable", "note", "--output_dir"),
        ("unresolved-arguments", "warning", "--gradient_checkpointing"),
    ]
    assert (
        caught.value.findings[0].message
        == "--lora_rank is $RANK, and `$RANK` is not set in this file: pass --set --lora_rank=VALUE."
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--batch_size", "--batch_size is true, a flag without a value; expected a whole number"),
        ("--batch_size 1 2", "--batch_size is "),
        ("--batch_size 0", "expected a whole number from 1"),
        ("--gradient_checkpointing maybe", "expected true or false"),
    ],
)  # fmt: skip
def test_a_value_that_no_flag_has_is_refused(tmp_path: Path, words: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        draft(tmp_path, f"python t.py {words}")
    assert said in caught.value.findings[0].message
    assert caught.value.findings[0].line == 1


def test_a_launch_is_known_by_its_programs_end() -> None:
    for program in ("python a/b/train.py", "python -m pkg.train", "python train.py"):
        read = document.read("-", text=f"#!/bin/sh\n{program}")
        assert flags.runs(read, "b/train.py", "pkg.train", "train.py") is True
        assert flags.runs(read, "rain.py", "kg.train", "other.py") is False
    assert not flags.runs(document.read("-", text="a: 1"), "train.py")
