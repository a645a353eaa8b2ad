"""Makes the files of this folder with the real writers, and the values their readers give.

Run it where onnx, gguf, flax, optax, keras, lightning, transformers, deepspeed and torch are installed:
``python tests/checkpoint_files/make.py``. The tests then need none of the writers. ``expected/X.npz``
holds what the framework itself has in memory for file ``X``: ``name`` for weights and ``name|slot``
for optimizer state.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

HERE = Path(__file__).parent


def expect(name: str, values: Mapping[str, Any]) -> None:
    (HERE / "expected").mkdir(exist_ok=True)
    arrays = {key: np.asarray(value) for key, value in values.items()}
    np.savez_compressed(HERE / "expected" / f"{name}.npz", **arrays)  # type: ignore[arg-type]


def onnx_models() -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 3)).astype(np.float32)
    kept = {
        "weight": numpy_helper.from_array(weight, "weight"),
        "typed": helper.make_tensor("typed", TensorProto.FLOAT, [3], [0.1, -2.5, 3e10]),
        "half": numpy_helper.from_array(weight.astype(np.float16), "half"),
        "half_typed": helper.make_tensor(
            "half_typed", TensorProto.FLOAT16, [2], np.array([1.5, -0.25], np.float16)
        ),
        "bfloat": helper.make_tensor("bfloat", TensorProto.BFLOAT16, [2], [1.5, -2.0]),
        "double": helper.make_tensor("double", TensorProto.DOUBLE, [2], [1e300, -2.5]),
        "small": helper.make_tensor("small", TensorProto.INT8, [4], [-128, -1, 0, 127]),
        "sizes": helper.make_tensor("sizes", TensorProto.INT64, [2], [-1, 2**40]),
        "truth": helper.make_tensor("truth", TensorProto.BOOL, [3], [True, False, True]),
    }
    constant = helper.make_node(
        "Constant", [], ["fixed"], value=numpy_helper.from_array(np.array([5.0, 6.0], np.float32))
    )
    node = helper.make_node("Gemm", ["x", "weight"], ["y"], transB=1)
    inputs, outputs = ([helper.make_tensor_value_info(n, 1, s)] for n, s in (("x", [1, 3]), ("y", [1, 4])))
    graph = helper.make_graph([constant, node], "graph", inputs, outputs, initializer=list(kept.values()))
    model = helper.make_model(graph, producer_name="make.py")
    onnx.save(model, HERE / "model.onnx")
    outside = {"save_as_external_data": True, "location": "external.onnx.data", "size_threshold": 0}
    onnx.save(model, HERE / "external.onnx", **outside)
    read = {name: numpy_helper.to_array(tensor).astype(_plain(tensor)) for name, tensor in kept.items()}
    for name in ("model.onnx", "external.onnx"):
        expect(name, {**read, "fixed": np.array([5.0, 6.0], np.float32)})


def _plain(tensor: Any) -> Any:
    from onnx import numpy_helper

    dtype = numpy_helper.to_array(tensor).dtype
    return dtype if dtype.kind in "biufc" else np.float32  # what numpy lacks


def gguf_model() -> None:
    import gguf
    from gguf.quants import dequantize, quantize

    rows = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(HERE / "model.gguf", "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", "d"])
    writer.add_tensor("token_embd.weight", rows)
    writer.add_tensor("blk.0.attn_q.weight", rows.astype(np.float16))
    values: dict[str, Any] = {"token_embd.weight": rows, "blk.0.attn_q.weight": rows.astype(np.float16)}
    for name in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "BF16", "MXFP4"):
        kind = getattr(gguf.GGMLQuantizationType, name)
        packed = quantize(rows * 3 + 1, kind)
        writer.add_tensor(f"blk.0.{name}", packed, raw_dtype=kind)
        values[f"blk.0.{name}"] = dequantize(packed, kind)
    random = np.random.default_rng(8)  # gguf reads these types but does not write them: any bytes are some
    kinds = (("Q4_K", 144, (0, 2)), ("Q5_K", 176, (0, 2)), ("Q6_K", 210, (208,)), ("Q2_K", 84, (80, 82)),
             ("Q3_K", 110, (108,)), ("IQ4_NL", 18, (0,)), ("IQ4_XS", 136, (0,)))  # fmt: skip
    for name, size, halves in kinds:
        kind = getattr(gguf.GGMLQuantizationType, name)
        packed = random.integers(0, 256, (2, size), np.uint8)
        for at in halves:
            packed[:, at : at + 2] = np.array([[0.01], [-0.5]], np.float16).view(np.uint8)
        writer.add_tensor(f"blk.0.{name}", packed, raw_dtype=kind)
        values[f"blk.0.{name}"] = dequantize(packed, kind)
    wide = np.zeros((1, 256), np.float32)
    ternary = gguf.GGMLQuantizationType.TQ1_0
    writer.add_tensor("blk.0.TQ1_0", quantize(wide, ternary), raw_dtype=ternary)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expect("model.gguf", values)


def flax_state() -> None:
    import flax.linen as nn
    import flax.serialization
    import jax
    import jax.numpy as jnp
    import optax
    from flax.training.train_state import TrainState

    model = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)])
    x = jnp.asarray(np.random.default_rng(2).standard_normal((8, 3)), jnp.float32)
    params = model.init(jax.random.PRNGKey(0), x)["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adamw(1e-2))
    for _ in range(3):
        grads = jax.grad(lambda p: (model.apply({"params": p}, x) ** 2).mean())(state.params)
        state = state.apply_gradients(grads=grads)
    (HERE / "state.msgpack").write_bytes(flax.serialization.to_bytes(state))
    adam = state.opt_state[0]
    values = {}
    for suffix, tree in (("", state.params), ("|exp_avg", adam.mu), ("|exp_avg_sq", adam.nu)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            values[".".join(key.key for key in path) + suffix] = leaf
    expect("state.msgpack", values)


def keras_models() -> None:
    import keras

    keras.utils.set_random_seed(3)
    layers = [
        keras.layers.Input((3,)),
        keras.layers.Dense(4, name="first"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dense(4, name="second"),
        keras.layers.Dense(2, name="third"),
    ]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, "mse")
    rng = np.random.default_rng(3)
    model.fit(rng.standard_normal((16, 3)), rng.standard_normal((16, 2)), epochs=3, verbose=0)
    values = {f"{v.path.split('/', 1)[1]}": v.numpy() for v in model.variables if "seed" not in v.path}
    slots = {"momentum": "exp_avg", "velocity": "exp_avg_sq"}
    for parameter in model.trainable_variables:
        for word, slot in slots.items():
            path = f"{optimizer.name}/{parameter.path.replace('/', '_')}_{word}"
            found = next(v for v in optimizer.variables if v.path == path)
            values[f"{parameter.path.split('/', 1)[1]}|{slot}"] = found.numpy()
    for name in ("model.keras", "model.weights.h5", "model.h5"):
        (model.save_weights if "weights" in name else model.save)(HERE / name)
        expect(name, values)


def trainer_folder() -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    torch.manual_seed(4)
    config = GPT2Config(
        vocab_size=7, n_embd=4, n_layer=2, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    data = [{"input_ids": (x := torch.randint(0, 7, (8,))), "labels": x} for _ in range(8)]
    out = HERE / "trainer"
    shutil.rmtree(out, ignore_errors=True)
    arguments = TrainingArguments(
        out.name, per_device_train_batch_size=4, num_train_epochs=1, save_strategy="epoch", report_to=[],
        use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=data)
    trainer.train()
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    values = {name: p.detach().numpy() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        for slot in ("exp_avg", "exp_avg_sq"):
            values[f"{name}|{slot}"] = optimizer.state[parameter][slot].numpy()
    expect("trainer", values)
    model.save_pretrained(HERE / "shards", max_shard_size="1KB")
    expect("shards", {name: p.detach().numpy() for name, p in model.named_parameters()})


def lightning_checkpoint() -> None:
    import lightning
    import torch
    from torch import nn

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self, width: int = 4, rate: float = 0.01):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))

        def training_step(self, batch: Any, _: int) -> Any:
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=self.hparams.rate)

    lightning.seed_everything(5)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(16, 3)), batch_size=4)
    module = Module()
    trainer = lightning.Trainer(
        max_epochs=2, logger=False, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, data)
    trainer.save_checkpoint(HERE / "lightning.ckpt")
    values = {name: p.detach().numpy() for name, p in module.named_parameters()}
    for name, parameter in module.named_parameters():
        values[f"{name}|exp_avg_sq"] = trainer.optimizers[0].state[parameter]["exp_avg_sq"].numpy()
    expect("lightning.ckpt", values)


def torch_programs() -> None:
    """TorchScript, plain and frozen, and a program of torch.export."""
    import torch
    from torch import nn

    torch.manual_seed(7)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    state = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    torch.jit.script(net).save(str(HERE / "scripted.pt"))
    _drop_sources(HERE / "scripted.pt")
    expect("scripted.pt", state)
    program = torch.export.export(net, (torch.ones(2, 3),))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # speaks of where this file lies
    torch.export.save(program, HERE / "exported.pt2")
    expect("exported.pt2", state)
    torch.jit.freeze(torch.jit.script(net[2:].eval())).save(str(HERE / "frozen.pt"))
    _drop_sources(HERE / "frozen.pt")
    expect("frozen.pt", {"constants.0": state["2.weight"], "constants.1": state["2.bias"]})


def _drop_sources(path: Path) -> None:
    """Without the debugging members, which speak of where torch was installed."""
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".debug_pkl")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in kept.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def deepspeed_folders() -> None:
    """ZeRO stages 2 and 3 in two processes; the truth is DeepSpeed's own ``zero_to_fp32``."""
    import torch.multiprocessing
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    for stage in (2, 3):
        folder = HERE / f"zero{stage}"
        shutil.rmtree(folder, ignore_errors=True)
        torch.multiprocessing.spawn(_one_partition, args=(stage,), nprocs=2)
        state = get_fp32_state_dict_from_zero_checkpoint(str(folder), tag="global_step3")
        kept = torch.float32 if stage == 3 else torch.bfloat16  # stage 2 keeps the module's own weights
        values = {name: tensor.detach().to(kept).float().numpy() for name, tensor in state.items()}
        expect(f"zero{stage}", values)


def _one_partition(rank: int, stage: int) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(29700 + stage), RANK=str(rank), LOCAL_RANK=str(rank),
        WORLD_SIZE="2", LOCAL_SIZE="2", DS_ACCELERATOR="cpu",
    )  # fmt: skip
    import deepspeed
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = {"fc1": nn.Linear(5, 7), "relu": nn.ReLU(), "fc2": nn.Linear(7, 3)}
    net = nn.Sequential(OrderedDict(layers))
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "optimizer": {"type": "AdamW", "params": {"lr": 0.01, "torch_adam": True}},
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
    }
    engine, *_ = deepspeed.initialize(model=net, model_parameters=net.parameters(), config=config)
    for _ in range(3):
        engine.backward(engine(torch.randn(2, 5).bfloat16()).float().square().mean())
        engine.step()
    engine.save_checkpoint(f"zero{stage}", tag="global_step3")


def distributed_checkpoint() -> None:
    """Two processes: a model sharded by FSDP, and tensors split along other axes."""
    import torch.multiprocessing

    shutil.rmtree(HERE / "distributed", ignore_errors=True)
    torch.multiprocessing.spawn(_one_rank, nprocs=2)


def _one_rank(rank: int) -> None:
    import torch
    import torch.distributed.checkpoint as dcp
    from torch import nn
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard, distribute_tensor

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29617", RANK=str(rank), WORLD_SIZE="2")
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(6)
    columns, middle = torch.randn(4, 6), torch.randn(3, 5, 2)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    fully_shard(net, mesh=mesh)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(2):
        net(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    model, states = get_state_dict(net, optimizer)
    extra = {
        "columns": distribute_tensor(columns, mesh, [Shard(1)]),
        "middle": distribute_tensor(middle, mesh, [Shard(1)]),
    }
    state = {"model": {**model, **extra}, "optim": states, "step": 2}
    dcp.save(state, checkpoint_id="distributed")
    values = {name: p.full_tensor().detach().numpy() for name, p in net.named_parameters()}
    for name, parameter in net.named_parameters():
        slots = optimizer.state[parameter]
        values[f"{name}|exp_avg_sq"] = slots["exp_avg_sq"].full_tensor().numpy()
    if rank == 0:
        expect("distributed", {**values, "columns": columns.numpy(), "middle": middle.numpy()})
    torch.distributed.destroy_process_group()


def compressed_file() -> None:
    """Weights of eight bits with every kind of scales, and one of four bits."""
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams
    from safetensors.torch import save_file

    torch.manual_seed(9)
    kinds = {  # layer -> how its weight is kept, blocks of so many rows and columns
        "tensor": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}, (6, 100)),
        "channel": ("int-quantized", {"num_bits": 8, "strategy": "channel", "symmetric": False}, (1, 100)),
        "group": ("int-quantized", {"num_bits": 8, "strategy": "group", "group_size": 50}, (1, 50)),
        "block": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "block",
                                      "block_structure": [128, 128]}, (128, 128)),
        "packed": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 50}, (1, 50)),
    }  # fmt: skip
    state: dict[str, Any] = {"norm.weight": torch.ones(6)}
    values: dict[str, Any] = {"norm.weight": torch.ones(6)}
    for layer, (form, settings, (high, wide)) in kinds.items():
        weight = torch.randn((130, 150) if layer == "block" else (6, 100)) * 0.02 + 0.01
        args = QuantizationArgs(**settings)
        cells = [list(band.split(wide, 1)) for band in weight.split(high, 0)]
        low, top = (
            torch.stack([torch.stack([getattr(part, end)() for part in band]) for band in cells])
            for end in ("min", "max")
        )
        scale, zero = calculate_qparams(low, top, args)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        compressor = BaseCompressor.get_value_from_registry(form)
        kept = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
        small = compressor.compress(kept, scheme)
        state |= {f"{layer}.{name}": tensor.contiguous() for name, tensor in small.items()}
        if layer != "packed":
            values[f"{layer}.weight"] = compressor.decompress(small, scheme)["weight"].float()
    save_file(state, HERE / "compressed.safetensors")
    expect("compressed.safetensors", values)


def bits_and_bytes_file() -> None:
    import bitsandbytes as bnb
    import bitsandbytes.functional as functional
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(10)
    model = torch.nn.ModuleDict({
        "eight": bnb.nn.Linear8bitLt(64, 32, has_fp16_weights=False),
        "nested": bnb.nn.Linear4bit(128, 300, compress_statistics=True, quant_type="nf4"),
        "four": bnb.nn.Linear4bit(64, 32, compress_statistics=False, quant_type="fp4"),
    }).to("cpu")  # fmt: skip
    save_file(model.state_dict(), HERE / "bitsandbytes.safetensors")
    eight = model["eight"].weight
    values = {"eight.weight": functional.int8_vectorwise_dequant(eight.data, eight.SCB)}
    for name in ("nested", "four"):
        weight = model[name].weight
        values[f"{name}.weight"] = functional.dequantize_4bit(weight.data, weight.quant_state)
    expect("bitsandbytes.safetensors", values)


MAKERS = (
    onnx_models,
    gguf_model,
    flax_state,
    keras_models,
    trainer_folder,
    lightning_checkpoint,
    torch_programs,
    deepspeed_folders,
    distributed_checkpoint,
    compressed_file,
    bits_and_bytes_file,
)

WRITERS = {  # what is opened -> the distribution that wrote it, and by what
    "model.onnx": ("onnx", "onnx.save"),
    "external.onnx": ("onnx", "onnx.save with external data"),
    "model.gguf": ("gguf", "GGUFWriter, gguf.quants"),
    "state.msgpack": ("flax", "flax.serialization of a TrainState"),
    "model.keras": ("keras", "Model.save"),
    "model.h5": ("keras", "Model.save, old format"),
    "model.weights.h5": ("keras", "Model.save_weights"),
    "trainer/checkpoint-2": ("transformers", "Trainer"),
    "shards": ("transformers", "save_pretrained in shards"),
    "lightning.ckpt": ("lightning", "Trainer.save_checkpoint"),
    "scripted.pt": ("torch", "torch.jit.script"),
    "frozen.pt": ("torch", "torch.jit.freeze"),
    "exported.pt2": ("torch", "torch.export.save"),
    "zero2/global_step3": ("deepspeed", "DeepSpeed, ZeRO stage 2 on two ranks"),
    "zero3/global_step3": ("deepspeed", "DeepSpeed, ZeRO stage 3 on two ranks"),
    "distributed": ("torch", "torch.distributed.checkpoint, FSDP in two processes"),
    "compressed.safetensors": ("compressed-tensors", "compressors of compressed-tensors"),
    "bitsandbytes.safetensors": ("bitsandbytes", "layers of bitsandbytes in 8 and 4 bits"),
}


def note_writers(made: Sequence[str]) -> None:
    """Which version wrote what, for the page of formats; of what was not made again as it was noted."""
    path = HERE / "writers.json"
    noted = json.loads(path.read_text()) if path.exists() else {}
    for name, (package, by) in WRITERS.items():
        if name not in noted or not made:
            noted[name] = [by, f"{package} {version(package)}"]
    path.write_text(json.dumps(noted, indent=1) + "\n")


if __name__ == "__main__":
    os.chdir(HERE)  # some writers note their folder: let it be a relative one
    for maker in MAKERS:
        if len(sys.argv) < 2 or maker.__name__ in sys.argv[1:]:
            maker()
    note_writers(sys.argv[1:])
