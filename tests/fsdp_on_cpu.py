"""`edge-distil` under FSDP on CPUs, to be started by `torchrun`.

torch shards a model over CPUs as it does over GPUs; accelerate asks for it on accelerators alone, and is told otherwise
here. `STOP_AFTER` ends the run as a scheduler would, by SIGTERM, at the first line of metrics after that step.
"""

import os
import signal
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule

from edge_distil import cli
from edge_distil.distillation.corpus_trainer import CorpusTrainer

of_state, log_step = AcceleratorState.__init__, CorpusTrainer.log_step
STOP_AFTER = int(os.environ.get("STOP_AFTER", "1000000"))


def with_fsdp(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **options: Any) -> None:
    of_state(self, *args, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin
    if self.__dict__.get("fsdp_plugin") is not None:
        self.distributed_type = DistributedType.FSDP


def log_and_stop(self: CorpusTrainer) -> dict[str, float]:
    layer = self.accelerator.unwrap_model(self.model).model.distilbert.transformer.layer[0]
    assert isinstance(layer, FSDPModule), "the model is not sharded"
    if self.state.global_step >= STOP_AFTER:
        os.kill(os.getpid(), signal.SIGTERM)
    return log_step(self)


AcceleratorState.__init__ = with_fsdp  # type: ignore[method-assign]
CorpusTrainer.log_step = log_and_stop  # type: ignore[method-assign]
cli.main()
