import pytest

from splitveil.core.arguments import checked
from splitveil.core.errors import InputError


@checked
def weigh(count: int, *, word: str = "a") -> str:
    return word * count


def test_another_kind_is_named() -> None:
    assert weigh(2, word="b") == "bb"
    with pytest.raises(InputError, match="weigh"):
        weigh("2")  # type: ignore[arg-type]


def test_python_names_the_function_whose_argument_is_unknown_or_missing() -> None:
    with pytest.raises(TypeError, match=r"weigh\(\) got an unexpected keyword argument 'wrod'"):
        weigh(2, wrod="b")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"weigh\(\) missing 1 required positional argument: 'count'"):
        weigh()  # type: ignore[call-arg]
