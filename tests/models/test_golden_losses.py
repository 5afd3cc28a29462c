"""What the built-in components owe beside the conformance suite: golden losses and a cited source."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from adapters._base import Adapter, ItemTable
from harness import registry
from harness.conformance._subjects import D, each_component, each_model, loss_of, make_backbone, make_table
from harness.conformance.spectra import toy_spectrum
from harness.system.files import write_json

GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"


@each_component
def test_a_component_cites_its_source(package, name):
    assert re.search(r"\b(19|20)\d\d\b", registry.schema(package, name).doc), "no paper with its year"


def test_an_adapter_that_only_makes_its_whole_table_gives_rows_too():
    class Whole(Adapter):
        def __init__(self, spectrum, d):
            super().__init__(spectrum, d)
            self.table = torch.nn.Parameter(torch.randn(spectrum.n, d))

        def forward(self):
            return self.table - self.table.mean(0)

    table = ItemTable(Whole(toy_spectrum(), D), D, fusion="add", out_std=0.05, id_std=0.02)
    items = torch.tensor([3, 0, 9])
    torch.testing.assert_close(table.rows(items), table()[items])


@each_model
def test_behaviour_changes_only_together_with_the_version(package, name):
    drops = [p for p in registry.schema(package, name).params if p.endswith("dropout")]
    own = dict.fromkeys(drops, 0.0)  # dropout's draws are the platform's
    table = make_table(name, **own) if package == registry.ADAPTERS else make_table("id")
    backbone = (
        make_backbone(name, **own)
        if package == registry.BACKBONES
        else make_backbone("gru4rec", dropout=0.0, emb_scale="one")
    )
    optimizer = torch.optim.Adam([p for m in (table, backbone) for p in m.parameters()], lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of(table, backbone)
        loss.backward()
        optimizer.step()
    check_golden(f"{package}/{name}", loss.item(), registry.schema(package, name).version)


def check_golden(component, loss, version):
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    known = golden.get(component, {"loss": None, "version": None})
    same = known["loss"] is not None and loss == pytest.approx(known["loss"], rel=1e-4)
    if os.environ.get("UPDATE_GOLDEN") == "1" and not (same and known["version"] == version):
        assert known["version"] != version, (
            f"{component} behaves differently: raise its `version` above {version} first"
        )
        write_json(GOLDEN, golden | {component: {"loss": round(loss, 6), "version": version}})
        return
    assert component in golden, f"{component} has no golden loss yet: run the tests once with UPDATE_GOLDEN=1"
    remedy = "raise its `version` and run the tests once with UPDATE_GOLDEN=1"
    assert same, f"{component} trains to loss {loss:.6f}, golden {known['loss']}; if that is meant, {remedy}"
    assert known["version"] == version, f"{component} is version {version}, golden {known['version']}; {remedy}"
