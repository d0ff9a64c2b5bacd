"""Fold LoRA adapters into base models of any size, in a fixed few dozen megabytes of memory.

    import lorafold

    lorafold.merge("Llama-3.1-8B", "my-adapter", "merged")        # directories, or org/name
    lorafold.save_pretrained_merged(model, "merged", tokenizer)   # a live PEFT or Unsloth model
    lorafold.patch()                                              # ... as methods of the model

The work is done by the shared library in this package.  Importing it loads neither torch nor
transformers; they are used only where a live model is passed.  docs/PYTHON.md says more.
"""

# SPDX-License-Identifier: Apache-2.0

TYPE_CHECKING = False  # that of typing, without the time that typing takes; checkers know the name
if TYPE_CHECKING:
    from lorafold._batch import merge_many as merge_many
    from lorafold._errors import BatchError as BatchError
    from lorafold._errors import Cancelled as Cancelled
    from lorafold._errors import DifferenceError as DifferenceError
    from lorafold._errors import FormatError as FormatError
    from lorafold._errors import LorafoldError as LorafoldError
    from lorafold._errors import MachineError as MachineError
    from lorafold._errors import MismatchError as MismatchError
    from lorafold._errors import UsageError as UsageError
    from lorafold._hub import fetch as fetch
    from lorafold._merge import merge as merge
    from lorafold._merge import plan as plan
    from lorafold._patch import attach as attach
    from lorafold._patch import patch as patch
    from lorafold._progress import Progress as Progress
    from lorafold._records import BatchReport as BatchReport
    from lorafold._records import Plan as Plan
    from lorafold._records import Report as Report
    from lorafold._records import VerifyReport as VerifyReport
    from lorafold._save import push_to_hub_merged as push_to_hub_merged
    from lorafold._save import save_pretrained_merged as save_pretrained_merged
    from lorafold._verify import inspect as inspect
    from lorafold._verify import verify as verify

__version__ = "0.1.0"

# Where each name is, so that importing the package takes no time until something of it is used.
_MODULES = {
    "BatchError": "_errors",
    "BatchReport": "_records",
    "Cancelled": "_errors",
    "DifferenceError": "_errors",
    "FormatError": "_errors",
    "LorafoldError": "_errors",
    "MachineError": "_errors",
    "MismatchError": "_errors",
    "Plan": "_records",
    "Progress": "_progress",
    "Report": "_records",
    "UsageError": "_errors",
    "VerifyReport": "_records",
    "attach": "_patch",
    "fetch": "_hub",
    "inspect": "_verify",
    "merge": "_merge",
    "merge_many": "_batch",
    "patch": "_patch",
    "plan": "_merge",
    "push_to_hub_merged": "_save",
    "save_pretrained_merged": "_save",
    "verify": "_verify",
}
__all__ = list(_MODULES)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module 'lorafold' has no attribute '{name}'")
        from importlib import import_module

        found: object = getattr(import_module(f"lorafold.{_MODULES[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
