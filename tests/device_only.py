"""A Python in which only what a device has to install can be imported."""

from importlib import metadata

from packaging.requirements import Requirement

REFUSING = """
import sys
class Refuse:
    refused = frozenset({refused})
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.refused:
            raise ModuleNotFoundError(f"No module named {{name!r}}: a device does not install it", name=name)
sys.meta_path.insert(0, Refuse())
"""


def device_only() -> str:
    """Code that makes every installed package fail to import but splitveil and what it requires without extras."""
    wanted, found = ["splitveil"], dict[str, set[str]]()
    while wanted:
        asked = Requirement(wanted.pop())
        name = _plain(asked.name)
        new = asked.extras - found[name] if name in found else {""} | asked.extras
        found.setdefault(name, set()).update(new)
        for text in metadata.requires(asked.name) or [] if new else []:
            needed = Requirement(text)
            if any(needed.marker is None or needed.marker.evaluate({"extra": extra}) for extra in new):
                wanted.append(text.partition(";")[0])
    modules = metadata.packages_distributions()
    there = {module for module, names in modules.items() if any(_plain(name) in found for name in names)}
    return REFUSING.format(refused=sorted(set(modules) - there))


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
