"""Every error that SplitVeil raises on purpose.

::

    SplitVeilError                  exit code 1
    ├── InputError                  exit code 2: what the user gave cannot be used; the message ends with the remedy
    │   ├── UnknownNameError        no such attack, defence, model, ...; names the nearest one
    │   ├── CutError                no legal cut there; names what else would cross and the nearest legal cuts
    │   ├── DataError               missing, unreadable or wrongly shaped data
    │   │   └── BrokenPictureError  one picture file (pictures/opening.py)
    │   ├── OverlapError            an image is both private and known to the adversary
    │   └── WeightsError            weights that do not fit the model or are not finite
    ├── MissingExtraError           a part that is not installed was asked for; says what to install
    ├── WriteError                  something could not be written; says which results are on the disk and how to go on
    ├── ThreatModelError            an attack reads what its adversary was not granted
    ├── TrainingError               training diverged or cannot resume
    ├── AnswerError                 a net answers NaN or infinity, which is no class
    ├── BundleError                 a bundle is incomplete, altered or from another schema
    │   └── PrivacyPolicyError      exit code 3: its leakage card does not keep the privacy policy (serving/policy.py)
    ├── ContractError               edge and cloud halves do not belong together, or a request breaks their contract
    │   └── BrokenRuleError         one rule of the contract, by its name (serving/contract.py)
    └── LinkError                   the cloud half cannot be reached or did not answer in time
        ├── OutageError             no answer at all, which is what a fallback is for (serving/exchange.py)
        │   └── MalformedAnswerError    one that is none: wrong sizes, NaN or infinity; an AnswerError too
        └── RefusedError            a server does not answer this request; with its reason (serving/refusal.py)

Messages are one sentence, "expected ..., got ...", with the nearest valid name where there is one and one remedy.
"""


class SplitVeilError(Exception):
    """Root of the tree."""

    exit_code = 1


class InputError(SplitVeilError):
    """What the user gave cannot be used."""

    exit_code = 2


class UnknownNameError(InputError):
    """A name that no registry knows."""


class CutError(InputError):
    """The model cannot be cut there."""


class DataError(InputError):
    """Missing, unreadable or wrongly shaped data."""


class OverlapError(InputError):
    """Private images that the adversary also holds."""


class WeightsError(InputError):
    """Weights that do not fit or are not finite."""


class MissingExtraError(SplitVeilError):
    """A part that is not installed."""


class WriteError(SplitVeilError):
    """Something could not be written; no finished result is lost."""


class ThreatModelError(SplitVeilError):
    """A read that the adversary was not granted."""


class TrainingError(SplitVeilError):
    """Training diverged or cannot resume."""


class AnswerError(SplitVeilError):
    """Answers that are none: NaN or infinite logits name no class."""


class BundleError(SplitVeilError):
    """A bundle that is incomplete, altered or from another schema."""


class ContractError(SplitVeilError):
    """Halves that do not belong together."""


class LinkError(SplitVeilError):
    """The cloud half cannot be reached."""
