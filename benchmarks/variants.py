"""The variants that benchmarks compare: the papers' own, and ours with fewer and fewer features.

Every function prepares one variant and returns the function to time or to measure; each is picklable, to run
in a process of its own. The plain variants are those of tests/reference: eager, fp32, one class at a time,
the allocator as it comes.
"""

from __future__ import annotations

import copy
import functools
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap
from torch.nn.grad import conv2d_weight

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the plain versions live beside the tests

from dsdistill.augment.dsa import Augmentation, Parameters
from dsdistill.compute.lamb import Lamb
from dsdistill.data import catalog
from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation import assembly
from dsdistill.distillation import config as configs
from dsdistill.evaluation import students
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.ensembles import Ensembles
from dsdistill.evaluation.execution import Execution
from dsdistill.experts import config as expert_config
from dsdistill.experts.automatic import decide_auto
from dsdistill.experts.trainer import Trainer
from dsdistill.networks import build_network
from dsdistill.networks.layers import Convolution
from dsdistill.networks.layout import Layout
from dsdistill.objectives.gradients import matched_parameters
from dsdistill.protocol import load_protocol
from dsdistill.runtime.device import quiet_allocator
from dsdistill.seeding import generator
from dsdistill.storage import expert_writer
from dsdistill.storage.expert_file import ExpertMetadata, Snapshot, TrainingRecord
from tests.reference import student as reference
from tests.reference.datadam import attention_matching_loss
from tests.reference.dm import distribution_matching_loss
from tests.reference.gradient import gradient_matching_loss, inner_epochs
from tests.reference.idm import class_loss
from tests.reference.ncfm import plain_class_loss
from tests.reference.regression import adam_step, frepo_loss
from tests.reference.sre2l import recover
from tests.reference.trajectory import matching_loss, unrolled

DEVICE = torch.device(os.environ.get("DSDISTILL_BENCHMARK_DEVICE", "cpu"))
"""That computes; the plain variants are for a CPU."""
Variant = Callable[[], Callable[[], Any]]


def plain_dm(ipc: int) -> Callable[[], Any]:
    """One DM iteration as the papers' code does it."""
    loop = _loop(ipc, "fp32", compile=False)
    network, draw = _as_published(loop.sources.supply.network), _plainly(loop, 256)
    optimiser = torch.optim.SGD(loop.synthetic.parameters(), lr=1.0, momentum=0.5)

    def iteration() -> None:
        real, augment = draw()
        optimiser.zero_grad()
        fake = list(loop.synthetic.of(torch.arange(10)).split(loop.synthetic.decoded_counts))
        distribution_matching_loss(network.embed, real, fake, augment).backward()
        optimiser.step()

    return iteration


def _plainly(loop: Any, per_class: int) -> Callable[[], tuple[list[torch.Tensor], list[Any]]]:
    """Draw a network for each iteration, and return what is drawn beside it.

    Real images of each class, [per_class, C, H, W], and each class's augmentation.
    """
    sources = loop.sources
    images = sources.task.preprocess(sources.data.unit(slice(None)))  # the papers' code keeps all as floats
    members = [sources.data.indices_of(c) for c in range(10)]
    step = 0

    def draw() -> tuple[list[torch.Tensor], list[Any]]:
        nonlocal step
        sources.iteration, step = step, step + 1
        sources.drawn()
        rows = sources.siamese()
        augment = [functools.partial(_shared, sources.augmentation, rows[c : c + 1]) for c in range(10)]
        return [images[i[torch.randperm(len(i))[:per_class]]] for i in members], augment

    return draw


def _as_published(network: Any) -> Any:
    """Let grey images be padded inside the first convolution, as the papers' networks do it."""
    for module in network.modules():
        if isinstance(module, Convolution):
            module.__class__ = torch.nn.Conv2d  # type: ignore[assignment]
    return network


def _shared(augmentation: Augmentation, row: Parameters, images: torch.Tensor) -> torch.Tensor:
    return augmentation(images, row[torch.zeros(len(images)).long()])


def ours_dm(ipc: int, precision: str, compile: bool) -> Callable[[], Any]:
    """One DM iteration of the engine."""
    quiet_allocator()
    return _loop(ipc, precision, compile).step


def _loop(
    ipc: int,
    precision: str,
    compile: bool,
    method: str = "dm",
    compute: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    options = {
        "method": method,
        "data": {"name": "fashion-mnist"},
        "ipc": ipc,
        "compute": {"precision": precision, "compile": compile, **(compute or {})},
        **options,
    }
    cfg = configs.resolve(options)
    task, real = catalog.load(cfg.data, "train")
    return assembly.assemble(cfg, task, real, DEVICE, print)


def plain_student(ipc: int) -> Callable[[], Any]:
    """One epoch of a student as the papers' code trains it."""
    task, images, labels, draw = _students(ipc)
    network = _as_published(build_network("convnet3", task.channels, task.size, task.num_classes))
    epoch = 0

    def one_epoch() -> None:
        nonlocal epoch
        epoch += 1
        reference.train(
            network,
            images,
            labels,
            epochs=0,
            batch_size=256,
            lr=0.01,
            order=lambda _: torch.randperm(len(images)),
            augment=lambda x, _, batch: draw(x, epoch),
        )

    return one_epoch


def ours_student(ipc: int, precision: str, compile: bool, stacked: int = 0) -> Callable[[], Any]:
    """One epoch of the evaluator: of one student, or of several stacked."""
    quiet_allocator()
    execution = Execution(DEVICE, precision, compile, print)  # type: ignore[arg-type]
    return _fitted(ipc, execution, "convnet3", stacked or 1)


def epochs_of_students(network: str, count: int, graphs: bool, ipc: int = 10) -> Callable[[], Any]:
    """Two epochs of so many students of a network, in fp32, with or without CUDA graphs."""
    return _fitted(ipc, Execution(DEVICE, "fp32", False, print, graphs), network, count)


def _fitted(ipc: int, execution: Execution, name: str, count: int) -> Callable[[], Any]:
    """Students that train side by side."""
    task, images, labels, _ = _students(ipc)
    protocol = load_protocol("dm", epochs=1)
    networks = [build_network(name, task.channels, task.size, task.num_classes) for _ in range(count)]
    ensemble = Ensembles(execution).fill(networks)
    training = students.StudentTraining(protocol, protocol.transform_for(task.mirror))
    sets, repeats = [TrainingSet(images, labels)] * count, list(range(count))

    def two_epochs() -> None:  # epochs 0 and 1, as a protocol of one epoch has it
        students.fit(ensemble, sets, repeats, training, execution)

    return two_epochs


def _students(
    ipc: int,
) -> tuple[Any, torch.Tensor, torch.Tensor, Callable[[torch.Tensor, int], torch.Tensor]]:
    loop = _loop(ipc, "fp32", compile=False)
    task, synthetic = loop.sources.task, loop.synthetic
    augmentation = load_protocol("dm").augmentation_for(task.mirror)

    def draw(images: torch.Tensor, epoch: int) -> torch.Tensor:
        rows = augmentation.draw(len(images), task.size, generator(0, "augment", epoch), shared_operator=True)
        return augmentation(images, rows)

    return task, synthetic.images.detach(), synthetic.labels, draw


_NEW_NETWORK_EACH = {"engine": {"supply": {"updates_per_network": 1}}}  # so that no training is timed


def plain_gradient(ipc: int) -> Callable[[], Any]:
    """One image update of DSA over all classes as the papers' code does it."""
    loop = _loop(ipc, "fp32", False, "dsa", **_NEW_NETWORK_EACH)
    network, draw = _as_published(loop.sources.supply.network).requires_grad_(True), _plainly(loop, 256)
    optimiser = torch.optim.SGD(loop.synthetic.parameters(), lr=0.1, momentum=0.5)

    def update() -> None:
        real, augment = draw()
        fake = list(loop.synthetic.of(torch.arange(10)).split(loop.synthetic.decoded_counts))
        optimiser.zero_grad()
        gradient_matching_loss(network, real, fake, augment, "cosine", "weights").backward()
        optimiser.step()

    return update


def ours_gradient(ipc: int, precision: str, compile: bool, second_order: str = "fp32") -> Callable[[], Any]:
    """One image update of DSA by the engine."""
    quiet_allocator()
    compute = {"second_order": second_order}
    return _loop(ipc, precision, compile, "dsa", compute=compute, **_NEW_NETWORK_EACH).step


def plain_inner(ipc: int) -> Callable[[], Any]:
    """One epoch of DSA's network on the synthetic set as the papers' code trains it."""
    loop = _loop(ipc, "fp32", False, "dsa")
    sources, images, labels = loop.sources, loop.synthetic.images.detach(), loop.synthetic.labels
    network = _as_published(sources.classifier().network).requires_grad_(True)

    def augment(batch: torch.Tensor, epoch: int, number: int) -> torch.Tensor:
        stream = generator(0, "inner-augment", epoch, number)
        rows = sources.augmentation.draw(len(batch), sources.task.size, stream, shared_operator=True)
        return sources.augmentation(batch, rows)

    def shuffled(epoch: int) -> torch.Tensor:
        return torch.randperm(len(images))

    return lambda: inner_epochs(network, images, labels, epochs=1, order=shuffled, augment=augment)


def ours_inner(ipc: int, precision: str, compile: bool) -> Callable[[], Any]:
    """One epoch of DSA's network on the synthetic set by the engine's supply."""
    quiet_allocator()
    loop = _loop(ipc, precision, compile, "dsa", engine={"supply": {"epochs": 1, "updates_per_network": 2}})
    sources = loop.sources
    sources.classifier()
    return lambda: sources.advance(loop.synthetic)


def per_class(how: str) -> Callable[[], Any]:
    """The gradients of ten classes of 64 real images each, to the weights: eager, fp32."""
    quiet_allocator()
    loop = _loop(1, "fp32", False, "dsa")
    learner = loop.sources.classifier()
    network, names = learner.network, matched_parameters(learner.network, "weights", "cosine")
    images = loop.sources.task.preprocess(
        torch.stack(
            [loop.sources.data.unit(loop.sources.batches.positions(c, 64, 0)) for c in range(10)]
        ).flatten(0, 1)
    )
    labels = torch.arange(10).repeat_interleave(64)
    batches = list(zip(images.split(64), labels.split(64), strict=True))

    def looped() -> Any:
        return [learner.gradient(*batch, names) for batch in batches]

    def mapped() -> Any:
        weights = learner.weights(())

        def loss(moving: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(functional_call(network, {**weights, **moving}, (x,)), y)

        moving = {name: weights[name] for name in names}
        return vmap(grad(loss), (None, 0, 0))(moving, images.unflatten(0, (10, 64)), labels.view(10, 64))

    def captured() -> Any:
        seen: list[tuple[torch.nn.Module, torch.Tensor, torch.Tensor]] = []

        def keep(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            out.register_hook(lambda slope: seen.append((module, inputs[0].detach(), slope)))

        layers = [m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
        hooks = [layer.register_forward_hook(keep) for layer in layers]
        x = images.clone().requires_grad_()  # so that every layer's output has a gradient
        logits = functional_call(network, learner.weights(()), (x,))
        torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum") / 64, x)
        for hook in hooks:
            hook.remove()
        gradients = []
        for layer, a, slope in seen:
            for each, d in zip(a.split(64), slope.split(64), strict=True):
                if isinstance(layer, torch.nn.Conv2d):
                    shape, padding = list(layer.weight.shape), layer.padding
                    gradients.append(conv2d_weight(each, shape, d, padding=padding))
                else:
                    gradients.append(d.T @ each)
        return gradients

    return {"loop": looped, "vmap": mapped, "capture": captured}[how]


def plain_datadam(ipc: int) -> Callable[[], Any]:
    """One DataDAM iteration as the papers' code does it: batch normalisation, p = 1."""
    loop = _loop(ipc, "fp32", False, "datadam")
    network, draw = _as_published(loop.sources.supply.network), _plainly(loop, 64)
    optimiser = torch.optim.SGD(loop.synthetic.parameters(), lr=1.0, momentum=0.5)

    def iteration() -> None:
        real, augment = draw()
        fake = list(loop.synthetic.of(torch.arange(10)).split(loop.synthetic.decoded_counts))
        optimiser.zero_grad()
        attention_matching_loss(network, real, fake, augment, p=1, balance=0.01).backward()
        optimiser.step()

    return iteration


def ours_datadam(ipc: int, precision: str, compile: bool) -> Callable[[], Any]:
    """One DataDAM iteration of the engine."""
    quiet_allocator()
    return _loop(ipc, precision, compile, "datadam").step


_LARGE_BATCHES = {"engine": {"batch_real": 256}}  # those of IPC 10 for every IPC


def plain_idm(ipc: int) -> Callable[[], Any]:
    """One IDM iteration as the papers' code does it: a step of the pixels per class, two networks trained."""
    loop = _loop(ipc, "fp32", False, "idm", **_LARGE_BATCHES)
    sources, network = loop.sources, _as_published(loop.sources.supply.network)
    draw = _plainly(loop, 256)
    optimiser = torch.optim.SGD(loop.synthetic.parameters(), lr=0.2, momentum=0.5)

    def iteration() -> None:
        real, augment = draw()
        for label in range(10):
            fake = loop.synthetic.of(torch.tensor([label]))
            optimiser.zero_grad()
            class_loss(network, real[label], fake, augment[label], label, 20.0).backward()
            optimiser.step()
        network.requires_grad_(True)
        for turn in range(2):
            trained = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
            config, drawn = sources.supply.config, sources.training_batches()
            batches = drawn.random_real(sources.iteration, turn, config.steps, config.batch_size)
            for images, labels in batches:
                logits = network(images)
                trained.zero_grad()
                F.cross_entropy(logits, labels).backward()
                trained.step()
                (logits.argmax(1) == labels).sum()
        network.requires_grad_(False)

    return iteration


def ours_idm(ipc: int, precision: str, compile: bool) -> Callable[[], Any]:
    """One IDM iteration of the engine."""
    quiet_allocator()
    return _loop(ipc, precision, compile, "idm", **_LARGE_BATCHES).step


_NO_POOL = {"engine": {"supply": {"kind": "fresh"}}}  # untrained networks cost as much as trained ones


def plain_ncfm(ipc: int) -> Callable[[], Any]:
    """One NCFM iteration as the papers' code does it: matching, then calibration, a step for every class."""
    loop = _loop(ipc, "fp32", False, "ncfm", **_NO_POOL)
    network, draw = _as_published(loop.sources.supply.network), _plainly(loop, 1024)
    optimiser = torch.optim.AdamW(loop.synthetic.parameters(), lr=1e-3, weight_decay=5e-4)

    def iteration() -> None:
        real, augment = draw()
        for label in range(10):
            fake = augment[label](loop.synthetic.of(torch.tensor([label])))
            frequencies = torch.randn(4096, network.feature_dim)
            optimiser.zero_grad()
            plain_class_loss(network, augment[label](real[label]), fake, frequencies).backward()
            optimiser.step()
        for label in range(10):
            fake = augment[label](loop.synthetic.of(torch.tensor([label])))
            optimiser.zero_grad()
            F.cross_entropy(network(fake), torch.full((len(fake),), label)).backward()
            optimiser.step()

    return iteration


def ours_ncfm(ipc: int, precision: str, compile: bool) -> Callable[[], Any]:
    """One NCFM iteration of the engine."""
    quiet_allocator()
    return _loop(ipc, precision, compile, "ncfm", **_NO_POOL).step


def plain_kernel(ipc: int) -> Callable[[], Any]:
    """One FRePo iteration as the papers' code does it: all real images in one pass, every kernel whole."""
    loop = _loop(ipc, "fp32", False, "frepo")
    synthetic, task = loop.synthetic, loop.sources.task
    data = loop.sources.data
    images = task.preprocess(data.unit(slice(None)))  # the papers' code keeps all as floats
    goals = F.one_hot(data.labels, task.num_classes).float() - 1 / task.num_classes
    optimiser = Lamb(synthetic.parameters(), lr=3e-4)
    members: list[tuple[Any, torch.optim.Optimizer]] = []

    def begin() -> None:
        for _ in range(loop.sources.supply.config.size):
            network = _as_published(copy.deepcopy(loop.sources.supply.network)).requires_grad_(True)
            network.to(memory_format=torch.contiguous_format)
            members.append((network, torch.optim.Adam(network.parameters(), lr=3e-4)))

    def iteration() -> None:
        if not members:  # they are part of what the iteration takes
            begin()
        network, adam = members[int(torch.randint(len(members), ()))]
        rows = torch.randperm(len(images))[:1024]
        network.requires_grad_(False)
        seen, answers = synthetic.of(torch.arange(10)), synthetic.answers()
        optimiser.zero_grad()
        frepo_loss(network, seen, answers, images[rows], goals[rows]).backward()
        optimiser.step()
        adam_step(network.requires_grad_(True), seen.detach(), answers.detach(), adam)

    return iteration


def ours_kernel(ipc: int, precision: str, compile: bool) -> Callable[[], Any]:
    """One FRePo iteration of the engine."""
    quiet_allocator()
    return _loop(ipc, precision, compile, "frepo").step


def write_experts(
    path: Path,
    task: Task,
    real: RealDataset,
    layout: Layout,
    walks: Sequence[Sequence[Snapshot]],
    network: str = "convnet",
) -> None:
    """Write experts of a network, each with its weights after as many epochs as it has."""
    facts = ExpertMetadata(
        network=network,
        layout=layout,
        dataset=task.name,
        fingerprint=real.fingerprint,
        classes=task.classes,
        channels=task.channels,
        size=task.size,
        preprocess=task.preprocess,
        epochs=tuple(range(len(walks[0]))),
        seed=0,
        config="",
    )
    training = TrainingRecord(0.0, 0.0, 0.0, "", "")
    expert_writer.write(path, facts, iter([(training, iter(walk)) for walk in walks]), len(walks))


def _recovery(ipc: int, precision: str, compile: bool) -> Any:
    """A loop of SRe2L whose teacher has the running statistics of some batches of noise: fresh weights."""
    with tempfile.TemporaryDirectory() as folder:
        path, name = Path(folder) / "teacher.h5", "resnet18-batch-w16"
        data = {"name": "fashion-mnist"}
        task, real = catalog.load(configs.resolve({"data": data, "ipc": 1}).data, "train")
        network = build_network(name, task.channels, task.size, task.num_classes)
        for batch in (torch.arange(640) % len(real)).split(64):
            network(task.preprocess(real.unit(batch)))
        layout = Layout.of(network)
        write_experts(path, task, real, layout, [[layout.pack(network.state_dict())]], name)
        engine = {"supply": {"path": str(path)}}
        loop = _loop(ipc, precision, compile, "sre2l", network=name, engine=engine)
    return loop


def plain_recovery(ipc: int) -> Callable[[], Any]:
    """A step of every image as SRe2L's code takes it: batch after batch, each of one image a class."""
    loop = _recovery(ipc, "fp32", False)
    synthetic, engine, task = loop.synthetic, loop.engine, loop.sources.task
    (teacher,) = loop.sources.supply.members
    network = copy.deepcopy(teacher.network).to(memory_format=torch.contiguous_format)
    bounds = task.preprocess(torch.zeros(1, *task.shape)), task.preprocess(torch.ones(1, *task.shape))
    batches, turns = engine.all_batches(synthetic), itertools.count()

    def iteration() -> None:
        turn = next(turns)
        for batch in batches:
            down, right = torch.randint(0, 5, (2,), generator=generator(turn, "view", batch.number)).tolist()
            images = synthetic.images.detach()[batch.rows]
            recovered = recover(
                network,
                images,
                synthetic.labels[batch.rows],
                iterations=1,
                lr=0.25,
                weight=0.01,
                view=lambda x, _, by=(down, right): x.roll(by, (2, 3)),  # type: ignore[misc]
                bounds=bounds,
            )
            synthetic.images.data[batch.rows] = recovered

    return iteration


def ours_recovery(ipc: int, precision: str, compile: bool) -> Callable[[], Any]:
    """One iteration of the engine: a step of every image, several batches in a pass."""
    quiet_allocator()
    return _recovery(ipc, precision, compile).step


def _trajectories(ipc: int, steps: int, gradient: str, compile: bool, second_order: str = "fp32") -> Any:
    """A loop of MTT, all images in every step, on an expert whose weights wander at random."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experts.h5"
        task, real = catalog.load(
            configs.resolve({"data": {"name": "fashion-mnist"}, "ipc": 1}).data, "train"
        )
        network = build_network("convnet", task.channels, task.size, task.num_classes)
        layout = Layout.of(network)
        weights, nothing = layout.pack(network.state_dict())
        noise = torch.randn(4, len(weights), generator=generator(0, "walk"))
        walk = [(weights + 0.01 * epoch * noise[epoch], nothing) for epoch in range(4)]
        write_experts(path, task, real, layout, [walk])
        engine = {"steps": steps, "gradient": gradient, "expert_epochs": 2, "start": {"most": 2}}
        engine |= {"batch_synthetic": 0, "supply": {"path": str(path)}}
        loop = _loop(ipc, "fp32", compile, "mtt", engine=engine, compute={"second_order": second_order})
        loop.sources.supply.weights(0, 0, loop.synthetic.images)  # opens the file, which may go then
    return loop


def plain_trajectory(ipc: int, steps: int) -> Callable[[], Any]:
    """One MTT iteration as the papers' code does it: all steps unrolled in one graph."""
    loop = _trajectories(ipc, steps, "exact", False)
    sources, synthetic, lr = loop.sources, loop.synthetic, loop.synthetic.student_lr
    network, supply = _as_published(sources.supply.network), sources.supply
    optimiser = torch.optim.SGD([synthetic.images], 100.0, 0.5)
    rate = torch.optim.SGD([lr], 1e-5, 0.5)

    turns = itertools.count()

    def augment(step: int, images: torch.Tensor) -> torch.Tensor:
        stream = generator(0, "student-augment", next(turns) // steps, step)
        draw = sources.augmentation.draw(len(images), sources.task.size, stream, shared_operator=True)
        return sources.augmentation(images, draw)

    def iteration() -> None:
        start, goal = (supply.weights(0, epoch, synthetic.images) for epoch in (0, 2))
        batches = [torch.randperm(len(synthetic.images)) for _ in range(steps)]
        path = unrolled(network, start, synthetic.images, synthetic.labels, batches, augment, lr)
        optimiser.zero_grad()
        rate.zero_grad()
        matching_loss(path, {steps: (1.0, goal)}).backward()
        optimiser.step()
        rate.step()

    return iteration


def ours_trajectory(
    ipc: int, steps: int, gradient: str, compile: bool, second_order: str = "fp32"
) -> Callable[[], Any]:
    """One MTT iteration of the engine."""
    quiet_allocator()
    return _trajectories(ipc, steps, gradient, compile, second_order).step


_PART = 24  # batches of 256: a tenth of an epoch of 60,000 images


def _trainer(precision: str, compile: bool, graphs: bool = False, network: str = "convnet") -> Trainer:
    compute: dict[str, Any] = {"device": str(DEVICE), "precision": precision, "compile": compile}
    options = {"recipe": "mtt", "network": network, "compute": compute | {"cuda_graphs": graphs}}
    config = expert_config.resolve({"data": {"name": "fashion-mnist"}, **options})
    task, real = catalog.load(config.data, "train")
    return Trainer(decide_auto(config, task, real, DEVICE, print), task, real, DEVICE, print)


def plain_expert(ipc: int) -> Callable[[], Any]:
    """A tenth of an expert's epoch as the papers' code does it."""
    trainer = _trainer("fp32", False)
    network = _as_published(trainer.network.train())
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)

    def part() -> None:
        for _, (images, targets, _) in itertools.islice(trainer._epoch_batches(0, 0), _PART):
            loss = F.cross_entropy(network(images), targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()

    return part


def ours_expert(ipc: int, precision: str, compile: bool) -> Callable[[], Any]:
    """A tenth of an expert's epoch by the trainer."""
    return part_of_expert(precision, compile, False, "convnet")


def part_of_expert(precision: str, compile: bool, graphs: bool, network: str) -> Callable[[], Any]:
    """The same of any network, with or without CUDA graphs."""
    quiet_allocator()
    trainer = _trainer(precision, compile, graphs, network)
    trainer.initialise(0)
    trainer.network.train()

    def part() -> None:
        for _, batch in itertools.islice(trainer._epoch_batches(0, 0), _PART):
            trainer._objective.backward(batch, 0)
            trainer._optimiser.step()
            trainer._optimiser.zero_grad()

    return part
