"""Tiny LISAs that are made trainable and trained for a few steps: for tests."""

import torch

from lisabench.harness.probe import NullProbe
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.training.examples import ExampleReader, batch_of
from lisabench.models.training.learner import Learner
from lisabench.models.training.recipes import LOSSES, RECIPES
from lisabench.models.training.save import Origin
from lisabench.models.training.trainable import make_trainable, trained

ORIGIN = Origin("trained by a test", (), "pytest")


def ready(recipe: str, **axes) -> Lisa:
    case = LisaConfig(device="cpu", **axes)
    lisa = Lisa(case, NullProbe(), for_training=True)
    make_trainable(lisa.model, case, RECIPES[recipe].trains, lisa.tokenizer)
    return lisa


def learned_from(lisa: Lisa, samples, weights=LOSSES["original-losses"], steps=1) -> Learner:
    """After some steps; the gradients of the last one stay."""
    learner = Learner(lisa.model, weights)
    reader = ExampleReader(lisa.case, lisa.model.preset, lisa.model.encoder.views, lisa.tokenizer)
    batch = batch_of(
        [reader(sample) for sample in samples], lisa.model.encoder, "cpu", torch.float32
    )
    own = torch.optim.AdamW(trained(learner).values(), lr=1e-2, weight_decay=0)
    for _ in range(steps):
        own.zero_grad()
        learner.weighted(learner(batch)).backward()
        own.step()
    return learner


def logits(lisa: Lisa, samples):
    inputs = lisa.preprocess(samples)
    features = lisa.vision(inputs)
    return lisa.decoder(inputs, features, lisa.llm(inputs, features)).logits_Mhw
