"""The source of an adapter that is no part of lisabench: it answers with a corner of the image."""

CORNER = '''
from dataclasses import dataclass
import numpy as np
from lisabench.harness.contract import Prediction

@dataclass(frozen=True)
class Case:
    """A corner of the image."""
    size_px: int = 4

class Corner:
    has_quality = True
    def __init__(self, case):
        self.case = case
        self.settings = {"adapter": "corner", "size_px": case.size_px}
    def preprocess(self, samples): return samples
    def vision(self, inputs): pass
    def llm(self, inputs, features): pass
    def decoder(self, inputs, features, answers): pass
    def postprocess(self, inputs, answers, decoded):
        masks = [np.zeros(sample.image.shape[:2], bool) for sample in inputs]
        for mask in masks: mask[:self.case.size_px, :self.case.size_px] = True
        return [Prediction(mask) for mask in masks]
    def close(self): pass

def build(case: Case, probe): return Corner(case)
'''
