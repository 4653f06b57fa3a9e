"""A distillation from options to a file."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dsdistill import files
from dsdistill.config.initial_names import is_set_file
from dsdistill.config.ipc import typical
from dsdistill.config.options import decisions, merge, parse_override
from dsdistill.data import catalog
from dsdistill.data.memory import InMemory
from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation import assembly, result
from dsdistill.distillation import config as configs
from dsdistill.distillation.agreement import agreed, check_devices, check_same
from dsdistill.distillation.caching import caching_words
from dsdistill.distillation.config import RunConfig
from dsdistill.distillation.estimate import advice, run_estimate, trial_estimate
from dsdistill.distillation.loop import Distiller
from dsdistill.distillation.memory import estimate
from dsdistill.distillation.observed import read_every, taken
from dsdistill.distillation.output import (
    check_output,
    check_storage,
    is_of_run,
    refuse_changes,
    store,
    written_options,
)
from dsdistill.distillation.run_loop import RunLoop
from dsdistill.distillation.start import RunStart
from dsdistill.distillation.stored import stored_words
from dsdistill.distillation.summary import Summary, summarise
from dsdistill.errors import UserError
from dsdistill.networks import add_networks, source_digest
from dsdistill.plugs import names_in
from dsdistill.protocol import load_protocol
from dsdistill.runtime import compiled_runs
from dsdistill.runtime.callbacks import Observer
from dsdistill.runtime.checkpoints import RunDirectory, iteration_of
from dsdistill.runtime.device import (
    available_memory,
    full_float32,
    reset_peak_memory,
    resolve_device,
    threads,
)
from dsdistill.runtime.estimate import RunEstimate
from dsdistill.runtime.notice import Notify
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet

_LEAST_SECONDS = 0.1
"""Of a loop that all else has left no time for: it takes one iteration."""


class DistillationRun:
    """One run, begun or resumed: its options are decided by `plan`, and `run` takes it to its file."""

    def __init__(
        self,
        output: Path,
        directory: RunDirectory,
        observer: Observer,
        resume: bool,
        overwrite: bool,
        ranks: Ranks = ALONE,
    ) -> None:
        """Check that the result can be written.

        Args:
            output: the file.
            directory: of the run.
            observer: the callbacks.
            resume: go on with the run in the directory, if there is one.
            overwrite: replace an earlier file and run.
            ranks: the processes that share the run.

        Raises:
            UserError: it cannot be written, or would replace something else.
        """
        self._ranks = ranks
        self._output, self._directory, self._observer = output, directory, observer
        self._asked_to_resume, self._overwrite = resume, overwrite
        self._resumes = resume and directory.config_file.exists()
        self._written: dict[str, Any] = {}  # options of the run that is resumed
        self._config: RunConfig
        self._set_by_user: dict[str, Any] = {}
        check_output(output, directory, self._resumes, overwrite or observer.dry)  # that replaces nothing

    @property
    def config(self) -> RunConfig:
        """The options, once they are planned."""
        return self._config

    @property
    def set_by_user(self) -> dict[str, Any]:
        """The nested options that are not the recipe's, once they are planned."""
        return self._set_by_user

    @property
    def resumes(self) -> bool:
        """Whether an earlier run goes on, whose options hold."""
        return self._resumes

    def plan(
        self,
        explicit: Mapping[str, Any],
        overrides: Sequence[str],
        file: Path | None,
        limits: Mapping[str, Any] | None = None,
        notify: Notify | None = None,
    ) -> None:
        """Resolve the options, before data are looked for.

        Args:
            explicit: nested options of the call.
            overrides: ``key=value`` texts.
            file: a config file.
            limits: nested options over those of the recipe; all others come before them.
            notify: receives the notices in place of the callbacks.

        Raises:
            UserError: they are bad, or not those of the run that is resumed.
        """
        notify, directory = notify or self._observer.on_notice, self._directory
        content = files.read_toml(file) if file else {}
        self._written = written_options(directory) if self._resumes else {}
        lower = merge(merge(limits or {}, self._written), content)
        config = configs.resolve(explicit, overrides, lower, notify)
        if file:
            configs.check_replayed(content, config, file, notify)
        resolve_device(config.compute.device)
        self._check(config)
        _add_networks(config)
        load_protocol(config.protocol, config.data.name, typical(config.ipc))  # the file will name it
        if self._resumes:
            undecided: tuple[str, ...] = ("compute",) if isinstance(config.ipc, int) else ("compute", "ipc")
            undecided += ("storage",) * (config.storage == "auto")
            refuse_changes(self._written, config, directory, undecided)
        self._config = config
        self._set_by_user = {}
        for layer in (self._written, content, explicit, *map(parse_override, overrides)):
            self._set_by_user = merge(self._set_by_user, layer)

    def _check(self, config: RunConfig) -> None:
        """Check options against each other and the output.

        Raises:
            UserError: a time is set for a method that takes no iterations, or the output would replace the
                set that the run starts from.
        """
        if config.seconds and not config.iterations:
            raise UserError(
                f"method {config.method!r} takes no iterations, so that a time has nothing to bound: leave "
                "--seconds out"
            )
        if is_set_file(config.init) and Path(config.init).resolve() == self._output.resolve():
            raise UserError(
                f"{config.init} is the set to start from and the output, and a stopped run could not go on "
                "without it: write to another file"
            )

    def run(self, source: InMemory | None = None, left: Callable[[], float] | None = None) -> Summary:
        """Distil, and write the file.

        Args:
            source: the data, if they are in memory.
            left: tells the seconds that the loop may take. It is asked when all else is ready, and comes
                before the seconds of the options.
        """
        observer, device = self._observer, resolve_device(self._config.compute.device)
        check_devices(self._ranks, device)
        reset_peak_memory(device)
        free = available_memory(device)  # the estimate counts all that comes now
        with self._ranks.first_before_others():  # which find decoded what the first has decoded
            task, real = catalog.load(self._config.data, "train", observer, source)
        resumed = self._directory.config_digest if self._resumes else ""
        check_same(self._ranks, self._config, real, resumed)
        with threads(self._config.compute.threads), full_float32():
            asked = self._config
            recompiles = self._decide(task, real, device)
            failed = observer.on_notice if observer.dry else self._uncompiled
            store = {} if observer.dry else self._directory.real_side(device)  # a dry run writes nothing
            distiller = assembly.assemble(self._config, task, real, device, failed, self._ranks, store)
            if left:
                in_time = dataclasses.replace(self._config, seconds=max(left(), _LEAST_SECONDS))
                self._config = agreed(self._ranks, in_time)
            metadata = self._prepare(distiller, real)
            self._ranks.check_same({"state to go on from": f"iteration {distiller.iteration}"})
            memory = estimate(distiller, real)
            short = assembly.is_too_short(asked, self._config, real)
            stored, done = stored_words(distiller.synthetic), distiller.iteration
            caching = caching_words(asked, self._config, task, real, device)
            start = RunStart(self._config, task, real, memory, done, free, stored, short, caching)
            observer.on_start(start)
            if observer.dry:
                self._tell(trial_estimate(self._config, distiller, start, read_every(device)))
            cadence, budget = self._config.checkpoint, self._config.seconds
            loop = RunLoop(
                distiller,
                self._directory,
                cadence,
                read_every(device),
                metadata,
                budget,
                functools.partial(observer.on_progress, "training the first networks"),
            )
            if recompiles and loop.share < 1:
                self._write_uncompiled()

            def current() -> DistilledSet:
                return result.distilled_set(self._config, distiller, real, loop.seconds, loop.peak_memory)

            def estimated() -> None:
                done, spent = distiller.iteration, loop.seconds
                remainder = run_estimate(self._config, distiller, memory, loop.pace.pace, done, spent)
                if remainder.amount:
                    self._tell(remainder)

            losses = taken(loop, self._config, current, observer, estimated)
            if self._config.compute.compile and losses and self._ranks.is_first:
                options = assembly.compiled_options(self._config, real)
                compiled_runs.remember(self._config.compute.code(options))
            distilled = current()
            for sentence in assembly.warnings_for(distiller, self._directory.discarded()):
                observer.on_notice(sentence)
        error = self._write(distilled, resumed_when_finished=not losses) if self._ranks.is_first else 0.0
        self._ranks.check_shared(self._output)  # once it is written
        return summarise(self._output, loop, distilled, losses, error)

    def _tell(self, estimated: RunEstimate) -> None:
        """Pass the estimate on; and say whose the iterations are, if nobody has set them."""
        if "iterations" not in self._set_by_user and (sentence := advice(self._config, estimated)):
            self._observer.on_notice(sentence)
        self._observer.on_estimate(estimated)

    def _decide(self, task: Task, real: RealDataset, device: torch.device) -> bool:
        """Decide every ``auto``; return whether a compiled run goes on where the compiler does not work.

        Raises:
            UserError: the options are not those of the run that is resumed.
        """
        asked = self._config
        check_storage(asked.stored_as, task)
        decided = assembly.decide_auto(asked, task, real, device, self._observer.on_notice)
        self._config = agreed(self._ranks, decided)
        self._observer.on_info(decisions(configs.as_table(asked), configs.as_table(self._config)))
        fails = asked.compute.compile is True and not self._config.compute.compile
        if self._resumes:
            undecided = ("compute.compile",) * fails
            refuse_changes(self._written, self._config, self._directory, undecided)
        return fails

    def _prepare(self, distiller: Distiller, real: RealDataset) -> dict[str, str]:
        """Begin the run or bring the loop to where it was, and return what the checkpoints record.

        A dry run goes on from there too, but writes nothing and reads no state.

        Raises:
            UserError: as `_begin` or `_restore`.
        """
        if not self._observer.dry:
            return self._restore(distiller, real) if self._resumes else self._begin(distiller, real)
        for latest in self._directory.checkpoints()[:1] if self._resumes else ():
            distiller.iteration = iteration_of(latest)
        return {}

    def _begin(self, distiller: Distiller, real: RealDataset) -> dict[str, str]:
        """Make the run's directory, and return what its checkpoints record.

        Raises:
            UserError: the file could not hold the texts of the set, or the directory is not free.
        """
        facts = result.attributes(self._config, distiller, real, 0.0, 0)
        set_file.check_storable(distiller.sources.task.classes, facts)
        if self._asked_to_resume:
            self._observer.on_notice(f"there is no run in {self._directory.path} to resume: starting anew")
        self._directory.create(configs.to_toml(self._config), self._overwrite)
        for sentence in assembly.class_notices(self._config, real, distiller.synthetic.counts):
            self._observer.on_notice(sentence)
        return {"fingerprint": real.fingerprint, "network_code": self._network_code()}

    def _network_code(self) -> str:
        return source_digest(names_in(self._config.network))

    def _restore(self, distiller: Distiller, real: RealDataset) -> dict[str, str]:
        """Bring a loop to where its run was, and return what the checkpoint records.

        Raises:
            UserError: every checkpoint is damaged, or the data have changed.
        """
        directory = self._directory
        state, metadata = directory.restore(self._observer.on_notice) or (
            {},
            {"fingerprint": real.fingerprint, "network_code": self._network_code()},
        )
        if metadata["fingerprint"] != real.fingerprint:
            raise UserError(
                f"{real.name} has changed since {directory.path.name} began; start anew with --overwrite"
            )
        if metadata.get("network_code", "") != self._network_code():
            self._observer.on_notice(
                f"the code of the network {self._config.network} has changed since {directory.path.name} "
                "began, or cannot be read: the run goes on with it as it is now"
            )
        if state:
            device = distiller.synthetic.images.device
            distiller.load_state_dict({name: value.to(device) for name, value in state.items()})
        directory.trim(distiller.iteration)
        return metadata

    def _uncompiled(self, sentence: str) -> None:
        """Go on without the compiler, which has failed."""
        self._write_uncompiled()
        self._observer.on_notice(sentence)

    def _write_uncompiled(self) -> None:
        """Turn compiling off, also in the run's config, so that resumed parts go without it too."""
        compute = dataclasses.replace(self._config.compute, compile=False)
        self._config = dataclasses.replace(self._config, compute=compute)
        with contextlib.suppress(UserError):  # a full disk is why compilers fail
            self._directory.write_config(configs.to_toml(self._config))

    def _write(self, distilled: DistilledSet, resumed_when_finished: bool) -> float:
        """Write the set and return the largest error of a pixel; a file of this run with results stays."""
        output = self._output
        if resumed_when_finished and is_of_run(output, self._directory):
            return set_file.largest_error(set_file.read(output), distilled)
        observer = self._observer

        def tick(done: int, total: int) -> None:
            observer.on_progress("refining", done, total)

        return store(output, distilled, self._config, observer.on_notice, tick)


def _add_networks(config: RunConfig) -> None:
    """Load the code of the networks that a run names.

    Raises:
        UserError: there is no such network, or they are several and the method takes one.
    """
    if config.student:
        add_networks(config.student)
    if len(names_in(add_networks(config.network))) > 1 and not config.engine.supply.several:
        raise UserError(f"method {config.method!r} takes one network, not {config.network}: name one of them")
