"""What each finding means: a check's own docstring, and a sentence or two for those that reading a config can give."""

from __future__ import annotations

from collections.abc import Mapping

from preflight import checks
from preflight.finding import ConfigError, Finding, did_you_mean

#: Findings of the reader, the schemas, the adapters and the catalog: what it is, and what mends it.
READING: Mapping[str, str] = {
    # the file
    "missing-file": "There is no file of that name. Paths are seen from the folder that preflight is started in.",
    "not-a-file": "The path is a folder. Name the config in it.",
    "unreadable-file": "The file is there, but the system does not let it be read.",
    "unreadable": "Standard input is not UTF-8 text.",
    "binary-file": "The file holds bytes that no text has. A config is UTF-8 text.",
    "too-large": "The file, or what its anchors and interpolations grow to, is far larger than any config.",
    "too-deep": "Groups, lists or interpolations stand within each other deeper than any config's.",
    "unknown-format": "The file's ending says what it is, and it is none of the formats that are read.",
    "empty-config": "There is nothing in the file, or only comments.",
    "not-a-mapping": "A config is keys and values; this file is a list or a single value.",
    "invalid-yaml": "The file is not YAML. The line is where its reader gave up; the slip is there or just above.",
    "invalid-toml": "The file is not TOML. The line is where its reader gave up; the slip is there or just above.",
    "invalid-json": "The file is not JSON (comments and a trailing comma are let pass). The line is where its reader gave up.",
    "unsafe-tag": "A YAML tag asks for a Python object to be made. None is: a config is data.",
    "several-documents": "The file holds several YAML documents, and a trainer would read one of them. Split it.",
    "recursive-anchor": "A YAML anchor holds itself.",
    "duplicate-key": "The same key stands twice in a group, and trainers differ in which they take.",
    "bad-key": "A key is not a text, a number or true or false, or has a form that cannot be written with dots.",
    "missing-value": "The value is ???, which stands for one that has to be given, as with --set key=value.",
    "unresolved-value": "An interpolation ${...} names no key of the file, or memory depends on what a resolver gives at launch.",
    "bad-override": "--set takes key=value, such as train.batch=4.",
    "bad-settings": "The project's settings ([tool.preflight] in pyproject.toml, or .preflight.yaml) cannot be used.",
    "file-not-read": "A file that the config names is not there; the message says what is taken instead.",
    # a launch script
    "no-launch": "The script starts no program that could be a training: python, torchrun, accelerate launch, deepspeed.",
    "several-launches": "The script starts several programs, and one was asked for. Name it by its line: train.sh:40.",
    "unknown-program": "No adapter knows the program that the script starts, so nothing of it can be judged.",
    "not-judged": "The script starts a further program, which looks like no training; it is left aside.",
    "unresolved-variable": "A flag's value depends on a variable that the script does not set, or on what a command prints. "
    "Scripts are read, never run: give the value with --set FLAG=VALUE.",
    "unresolved-arguments": "Where a variable that the script does not set stands among the flags, there may be further ones.",
    "flags-cut-off": "A comment between continued lines, or a missing \\ at a line's end, ends a command. What follows is one "
    "of its own, and its flags never reach the program.",
    "script-not-read": "Another script that this one calls is not there. Paths are seen from its folder and those above.",
    "invalid-shell": "The script's grammar breaks here, so what follows may be misread. `bash -n` says what bash thinks.",
    "windows-lines": "Bash takes the carriage return at the end of each line for a part of the last word.",
    # the family and its words
    "unknown-family": "No adapter knows the config by its keys. --adapter NAME forces one; preflight list adapters shows them.",
    "bad-adapter": "A package installed beside preflight offers an adapter that does not load, or is none. Ours work without it.",
    "unknown-adapter": "There is no adapter of that name. preflight list adapters shows them.",
    "bad-version": "The number after `preflight:` is the version of the canonical description; this program reads version 1.",
    "unknown-key": "The trainer reads no key of this name, so it changes nothing, and nothing is credited for it.",
    "missing-key": "The key has to be there: the trainer has no default for it, or the memory cannot be counted without it.",
    "invalid-value": "The value is of the wrong kind or out of range; the message says what was expected.",
    "conflicting-keys": "Two keys speak of one setting and disagree, and which of them counts is the trainer's secret. Keep one.",
    "assumed": "The config leaves this out; it is taken to be what the trainer does then, with the place that says so.",
    # what the adapters know of their trainers
    "cpu-adam": "VideoTuna's train_new.py gives DeepSpeed an Adam for CPUs, whatever the strategy, and it stops at parameters on a "
    "GPU. Strategies that end in _offload put them where it can work.",
    "mixed-dtypes": "VideoTuna loads the network in half precision and feeds it float32, and torch multiplies no two dtypes.",
    "frames-rounded": "Video VAEs make one latent frame of the first frame and one of each four after it; the rest is lost.",
    "data-index": "The file is HunyuanDiT's list of data, not its training settings; those are taken to be the trainer's defaults.",
    "accumulation-lost": "ai-toolkit's older key for accumulation runs several steps, and drops what the one before gathered.",
    "convolutions": "ai-toolkit gives convolutions adapters too; only those of linear layers are counted.",
    "float32-weights": "Without train.dtype ai-toolkit loads each part in float32, twice the size of bf16, before quantising it.",
    "frames-cut": "A video VAE makes one latent frame of several, so what remains of a clip's frames is left out.",
    "frames-not-in-config": "The trainer takes each clip at its own length, which stands in no config; num_frames is counted.",
    "recovery-adapter": "An accuracy recovery adapter is a file of low-rank weights for quantised ones; its rank is in it alone.",
    "several-processes": "A job's processes run one after another in one program, each with its own peak. The first is judged.",
    "single-blocks": "The adapter is for some blocks; it is counted as if in all, which is too much rather than too little.",
    "swapped-parameters": "A share of the weights has gradients at a time; all are counted, which is too much, not too little.",
    "trainer-refuses": "The trainer stops at these keys together with an error of its own, which the message tells.",
    "unquantized": "The trainer's backend passes over every layer with this type, so the weights stay as wide as they were.",
    "unread-offload": "The trainer loads this architecture without asking for layer offloading, so every layer stays on the GPU.",
    "unread-qtype": "The trainer quantises this architecture's text encoder by qtype, and does not look at qtype_te.",
    "vae-stays": "Cached latents let the VAE leave the GPU, except where the trainer encodes something in each step.",
    "aspect-assumed": "The data set gives an area or the shorter side, and the files' own aspects stand in no config.",
    "caching-not-counted": "SimpleTuner encodes text and data before it loads the network; that phase's own peak is not counted.",
    "distillation": "Distillation runs the teacher, and trains layers of its own, which are not counted.",
    "dora": "DoRA keeps a magnitude for each row of a weight and computes the weight's norm, neither of which is counted.",
    "ema-on-host": "The moving average waits in host memory, so it takes nothing from the GPU.",
    "further-loss": "The loss added here runs passes, or a further network, that are not counted.",
    "interval-ignored": "The trainer recomputes every block of this family, whatever the interval says.",
    "larger-groups": "Group offloading keeps more blocks on the GPU at a time than are counted.",
    "lycoris-targets": "LyCORIS picks layers by the classes of their modules; the message says which layers are counted.",
    "lycoris-weights": "Without bypass_mode LyCORIS makes each layer's changed weight whole as it runs, which is not counted.",
    "no-data-set": "None of the listed data sets is one that a step trains on, so the size of samples is not known.",
    "optimizer-replaced": "SimpleTuner takes another optimizer than the config names, in the case that the message tells.",
    "partial-checkpointing": "Recomputing only a part of each block is not modelled, so the step is counted without it.",
    "partly-streamed": "Only the layers that the names pick are streamed from the host; all are counted on the GPU, which is more.",
    "steps-and-epochs": "SimpleTuner stops when it is given both a number of steps and of epochs. Set num_train_epochs to 0.",
    "tread": "TREAD drops tokens on their way through the middle blocks, so the step needs less than is counted.",
    "alpha-set": "diffusion-pipe takes the rank for alpha and stops at a config that sets it.",
    "block-swap": "The trainer swaps blocks with the host in some runs only, and stops in this one.",
    "channel-mismatch": "The network is fed another number of channels than its config says, and stops at its first layer.",
    "compiled": "A compiled network frees and fuses otherwise than one that is not; it is judged as if it were not compiled.",
    "evaluation-larger": "Evaluation takes larger batches than training, and its own peak is not counted.",
    "fused-qkv": "Query, key and value are one layer in the trainer and three in the network that is counted.",
    "invalid-env": "A config.env is lines of NAME=value; this line is something else.",
    "model-assumed": "The config names a file, and its name does not say which of the family's models is in it.",
    "not-a-training-config": "The file describes data, validation or the launcher. Give the trainer's own config, which names it.",
    "not-counted": "The trainer does this in a way that needs less or more than is counted; the message says which.",
    "nothing-trained": "What the config chooses to train matches no parameter, so the optimizer gets an empty list and stops.",
    "older-version": "The config is of an older version of the trainer, whose layers are counted as the present one's.",
    "pipeline-stages": "The trainer does not divide this network into stages, or not in this run; the message says what stops it.",
    "reference-tokens": "A reference video's latents stand in the sequence with the target's, so a step has more tokens.",
    "size-not-in-config": "The data set was encoded beforehand, so its size stands in no config; another size of it is taken.",
    "text-encoders-train": "The trainer trains the text encoders too, which is not counted.",
    "text-false": 'The text "false" is true to the trainer. Write false without quotes.',
    "uneven-queue": "The trainer asserts that its queue of samples is a multiple of the batch.",
    "unread-argument": "The trainer hands the key on to a network that has no such argument.",
    "unread-average": "The trainer keeps no averaged copy of the network, whatever the config says.",
    "unread-network": "The trainer's model reads no such network, so none is made.",
    "unread-optimizer": "The trainer makes its own optimizer, whatever the config says.",
    "unread-precision": "The trainer does not read this precision; the part stays as it is.",
    "validation-size": "Validation runs on whole images whose size stands in no config, so it is not judged.",
    "zero-stage": "HunyuanDiT's trainer accepts ZeRO stages 2 and 3 only; its own default of 1 stops it.",
    "zero-init": "ZeRO-3 without zero.Init builds the whole model on every rank before dividing it.",
    "zero-persistence": "ZeRO-3 keeps small parameters gathered; HunyuanDiT's trainer sets that limit so high that all are.",
    "ema-off": "HunyuanDiT's trainer keeps no moving average when it trains LoRA, whatever the flags say.",
    "fused-wqkv": "HunyuanDiT's own network has one layer for query, key and value; three are counted, whose adapters are larger.",
    "flash-stays": "HunyuanDiT's trainer uses flash attention whenever --infer-mode is fa, its default, --no-flash-attn or not.",
    "no-flash": "Without flash attention, the score matrix of every head is kept; that is not counted.",
    "offload-optimizer-only": "HunyuanDiT's --cpu-offloading writes a key for parameters that DeepSpeed does not have.",
    "multireso": "With multireso the batches differ in shape; one of the base size is counted.",
    "other-text-encoder": "The network is made for another text encoder than the catalog's, and its size is not known.",
    "one-expert": "Wan2.2's A14B models are two networks, for high and for low noise; a training run loads and trains one.",
    "t5-fsdp": "FSDP's sharding of T5 is not counted: while T5 is on the GPU a whole one is, and on the CPU it has no effect.",
    "cache-path": "DiffSR keeps prepared data at the path up to its first dot; two data sets that share that part share the data.",
    "uneven-grid": "DiffSR makes its input by taking every sample_factor-th point, so the grid must be a multiple of it.",
    "factor-mismatch": "The network's own upsampling and data.sample_factor must be the same, or output and target differ in size.",
    # the catalog
    "unknown-gpu": "The catalog has no such GPU. preflight list gpus shows them; --gpu-memory GIB judges for any other.",
    "unknown-model": "The catalog has no such network. preflight list models shows them.",
    "unknown-component": "The catalog has no such text encoder or VAE.",
    "unknown-optimizer": "What this optimizer keeps between steps is not known, so the memory cannot be counted.",
    "unknown-quantization": "What this quantization stores is not known, so the memory cannot be counted.",
    "quantized-training": "Quantized weights cannot be trained themselves; adapters beside them can.",
    "gpu-likeness": "Only the GPU's memory was given; all else is taken to be as the named card has it.",
    "no-gpu": "Nobody says which GPU this is for: --gpu, hardware.gpu in the config, PREFLIGHT_GPU, the settings, or this machine.",
    "not-modelled": "This network, or this way to run it, is not modelled yet. What cannot be judged does not pass.",
    "missing-dimension": "The network's family has no fixed sizes, and one that it needs is not in the config.",
    "bad-dimension": "The dimensions in the config do not fit together to a network.",
    "lora-target": "A target matches no linear layer of the network: peft refuses it, or leaves it out where others match.",
    # the answer
    "no-reduction": "No key of the trainer makes it fit; the message says what fills the memory, and where the run would fit.",
    "fragmentation": "Torch's allocator takes more from the GPU than it hands out; that much less, and the run would fit.",
    "not-edited": "The change could not be written into the file as it stands; the message says why. Make it by hand.",
    "unknown-ignore": "A comment `# preflight: ignore[id]` names an id that no finding has, so it silences nothing.",
    "internal-error": "preflight itself failed. With PREFLIGHT_DEBUG=1 it shows where; please report it.",
}


def ids() -> tuple[str, ...]:
    """The id of every finding that there is, in order."""
    return tuple(sorted({*checks.ids(), *READING}))


def explanation(id_: str) -> str:
    """What the finding `id_` means, and what mends it, as text. Raises ConfigError ("unknown-id") when there is none."""
    if id_ in checks.ids():
        return f"{id_}\n\n{checks.documentation(id_)}\n"
    if id_ in READING:
        return f"{id_}\n\n{READING[id_]}\n"
    near = did_you_mean(id_, ids())
    hint = f"did you mean {near}?" if near else "preflight list checks shows those of the checks"
    raise ConfigError(Finding(id="unknown-id", severity="error", message=f"there is no finding {id_!r}; {hint}"))
