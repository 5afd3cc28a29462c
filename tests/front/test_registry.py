import inspect

import pytest

from harness import registry
from harness.domains import Domain
from harness.types import HarnessError


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("svd*,linear_whiten,!svd", ["svd_whiten", "linear_whiten"]),
        ("svd*", ["svd", "svd_whiten"]),
        ("linear-whiten", ["linear_whiten"]),
        ("mlp[hidden=256],mlp", ["mlp[hidden=256]", "mlp"]),
        ("id,id", ["id"]),
        ("svd*[trainable=true]", ["svd[trainable=true]", "svd_whiten[trainable=true]"]),
        ("mlp[hidden=8,dropout=0],mlp[dropout=0.0, hidden=8]", ["mlp[hidden=8,dropout=0]"]),
        ("mlp[hidden=8],mlp[hidden=16],!mlp[hidden=8]", ["mlp[hidden=16]"]),
        ("mlp[hidden=8],mlp[hidden=16],id,!mlp", ["id"]),
        ("id,!spectran_us", ["id"]),
        ("id,svd,!svd,svd", ["id", "svd"]),
    ],
)
def test_selections(selection, expected):
    assert registry.select("adapters", selection) == expected


def test_all_leaves_out_what_is_to_be_named_and_globs_and_names_do_not():
    everything, all_ = registry.names("adapters"), registry.select("adapters", "all")
    ablations = [n for n in everything if registry.schema("adapters", n).attributes.get("by_name_only")]
    assert {"spectran_wo_attn", "id_gain"} <= set(ablations)
    assert "spectran" not in ablations
    assert all_ == [name for name in everything if name not in ablations]
    assert registry.select("adapters", "all,spectran_wo_attn")[-1] == "spectran_wo_attn"
    assert set(ablations) <= set(registry.select("adapters", "*"))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("mpl", "There is no adapter 'mpl'. Did you mean 'mlp'? Known: "),
        ("zz*", "No adapter matches 'zz*'"),
        ("id,!id", "selects no "),
        ("mlp[hidden", "bracket is not closed"),
        ("mlp[hidden]", "'hidden' is not parameter=value"),
        ('mlp[hidden="2"],mlp["2"]', "'\"2\"' is not parameter=value"),
        ("!svd,svd,id", "'!svd' excludes nothing: write it after the names"),
        ("!svd*,svd,id", "'!svd*' excludes nothing: write it after the names"),
        ("mlp[hidden=8],!mlp[hidden=9]", "'!mlp[hidden=9]' excludes nothing"),
    ],
)
def test_wrong_selections_are_one_clear_line(selection, message):
    with pytest.raises(HarnessError) as caught:
        registry.select("adapters", selection)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", [registry.ADAPTERS, registry.BACKBONES, registry.LOSSES])
def test_the_schema_read_from_source_is_the_one_python_sees(package):
    for name in registry.names(package):
        component = registry.load(package, name)
        schema = registry.schema(package, name)
        parameters = inspect.signature(component.__init__).parameters.values()
        assert schema.cls == component.__name__
        assert schema.version == component.version
        assert schema.params == {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        assert schema.attributes.get("uses_text", True) == getattr(component, "uses_text", True)


def test_schemas_are_read_without_importing_torch():
    import subprocess
    import sys

    code = "import sys; from harness import registry as r; [r.schema(p, n) for p in (r.ADAPTERS, r.BACKBONES, "
    code += "r.BASELINES, r.LOSSES) for n in r.names(p)]; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_variant_that_fixes_or_narrows_inherited_parameters_has_the_schema_of_the_rest(tmp_path, monkeypatch):
    package = tmp_path / "toy_components"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "whole.py").write_text(
        "from typing import Literal\n\nclass Whole:\n    version = 2\n\n    def __init__(self, d, *, "
        "kind: Literal['a', 'b', 'c'] = 'a', share: float = 0.5, size: int = 3) -> None: ...\n"
    )
    (package / "variant.py").write_text(
        "from .whole import Whole\n\nclass Variant(Whole):\n    fixed = {'share': 1.0, 'size': 4}\n"
        "    choices = {'kind': ('a', 'b')}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    schema = registry.schema("toy_components", "variant")
    assert schema.params == {"kind": "a"}
    assert schema.domains == {"kind": Domain(str, choices=("a", "b"))}
    assert schema.attributes == {"version": 2}
    assert registry.schema("toy_components", "whole").domains["kind"].choices == ("a", "b", "c")
