"""Merges two adapters of the llama fixture with peft, in every way that Lorry serves.

    pip install torch transformers peft==0.21.2 safetensors
    python generate.py

Writes cases.json (what was asked for, and greedy answers of the sum) and merged.safetensors
(some modules' tensors of each case, named CASE|TENSOR).
"""

import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
LLAMA = HERE.parent / "llama"
MODULES = ["layers.0.self_attn.q_proj", "layers.1.self_attn.v_proj", "layers.2.mlp.down_proj"]
FIRST, SECOND, WIDE = "lora_qv", "rslora", "lora_all"

CASES = {
    "linear": dict(combination_type="linear"),
    "linear_negative": dict(combination_type="linear", weights=[0.7, -0.3]),
    "linear_one": dict(combination_type="svd", adapters=[SECOND], weights=[0.5]),
    "cat": dict(combination_type="cat"),
    "cat_ranks": dict(combination_type="cat", adapters=[WIDE, FIRST], weights=[0.25, -1.5]),
    "svd": dict(combination_type="svd"),
    "svd_ranks": dict(combination_type="svd", adapters=[FIRST, WIDE], svd_rank=12),
    "svd_reduced": dict(combination_type="svd", svd_full_matrices=False, svd_rank=4),
    "ties": dict(combination_type="ties", density=0.4),
    "ties_frequency": dict(
        combination_type="ties", density=0.7, majority_sign_method="frequency", weights=[0.7, -0.3]
    ),
    "ties_svd": dict(combination_type="ties_svd", density=0.5),
    "magnitude_prune": dict(combination_type="magnitude_prune", density=0.3),
    "magnitude_prune_svd": dict(combination_type="magnitude_prune_svd", density=0.3),
    "dare_linear": dict(combination_type="dare_linear", density=0.6, seed=11),
    "dare_ties": dict(combination_type="dare_ties", density=0.35, seed=12),
    "dare_linear_svd": dict(combination_type="dare_linear_svd", density=0.6, seed=13),
    "dare_ties_svd": dict(combination_type="dare_ties_svd", density=0.35, seed=14),
}


def load(adapters):
    base = AutoModelForCausalLM.from_pretrained(LLAMA / "base", dtype=torch.float32)
    model = PeftModel.from_pretrained(
        base, LLAMA / "adapters" / adapters[0], adapter_name=adapters[0]
    )
    for name in adapters[1:]:
        model.load_adapter(LLAMA / "adapters" / name, adapter_name=name)
    return model.eval()


def merged(case):
    options = dict(case)
    adapters = options.setdefault("adapters", [FIRST, SECOND])
    options.setdefault("weights", [0.6, 0.5][: len(adapters)])
    seed = options.pop("seed", None)
    model = load(adapters)
    if seed is not None:
        torch.manual_seed(seed)
    model.add_weighted_adapter(adapter_name="merged", **options)
    state = {}
    for key, value in model.state_dict().items():
        if ".merged." in key and any(module in key for module in MODULES):
            state[key.replace(".merged.", ".")] = value.clone().contiguous()
    if seed is not None:
        options["seed"] = seed
    return options, state, model


def answers(model, prompts, count=6):
    result = []
    for prompt in prompts:
        tokens, steps = list(prompt), []
        for _ in range(count):
            with torch.no_grad():
                logits = model(torch.tensor([tokens])).logits[0, -1]
            values = torch.log_softmax(logits.double(), -1)
            token = int(values.argmax())
            steps.append({"token": token, "logprob": float(values[token])})
            tokens.append(token)
        result.append(steps)
    return result


def main():
    cases, tensors = {}, {}
    for name, case in CASES.items():
        cases[name], state, model = merged(case)
        for key, value in state.items():
            tensors[f"{name}|{key}"] = value
    options, _, model = merged(CASES["cat_ranks"])
    model.set_adapter("merged")
    prompts = json.loads((LLAMA / "expected.json").read_text())["prompts"]
    written = {
        "modules": MODULES, "cases": cases, "prompts": prompts, "answered": "cat_ranks",
        "answers": answers(model, prompts),
    }
    (HERE / "cases.json").write_text(json.dumps(written, indent=1) + "\n")
    save_file(tensors, HERE / "merged.safetensors")


main()
