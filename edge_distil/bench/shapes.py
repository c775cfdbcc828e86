"""Models of the published shapes with random weights, for timing where no trained ones are at hand.

A dense encoder does the same arithmetic whatever its weights, so these take the time of the real ones. Their answers
are noise, and every result says so in `random_weights`.
"""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Shape = Literal["bert-base", "distilbert"]

# The defaults of these classes of transformers are BERT-base uncased (12 layers of 768) and DistilBERT (6 layers), both
# with 30,522 tokens.
_CONFIGS = {"bert-base": "BertConfig", "distilbert": "DistilBertConfig"}


def random_model(shape: Shape, *, seed: int = 0) -> "PreTrainedModel":
    """A question-answering model in fp32 of the true shape: 108.9 M parameters, or 66.4 M for "distilbert".

    The same seed gives the same weights, and the caller's random state is left as it was. Any tokeniser of at most
    30,522 tokens fits it. Raises KeyError for another shape.
    """
    # Here, not above: whoever times an ONNX graph has no use for seconds of imports and their memory.
    import torch
    import transformers

    config = getattr(transformers, _CONFIGS[shape])()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.AutoModelForQuestionAnswering.from_config(config).eval()
