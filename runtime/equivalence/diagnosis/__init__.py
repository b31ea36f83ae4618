"""Why a candidate differs: causes that are recognised by trying them."""

from stnkit.runtime.equivalence.diagnosis.hypotheses import diagnose

__all__ = ["diagnose"]
