"""Are KerasHub's backbones pruned exactly, inside their blocks too?"""

import keras
import pytest

import tfprune
from tfprune.verification import models as verification

pytest.importorskip("keras_hub", reason="KerasHub is not installed: pip install 'tfprune[hub]'")
BACKBONES = verification.hub_backbones()


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_is_pruned_exactly(name):
    row = verification.verify(name, BACKBONES[name], scopes=("layer",), ratios=(0.5,))
    assert "error" not in row, row["error"]
    assert row["exact"]
    assert row["change"] > 1e-3, "nothing was pruned that mattered, so the test proves nothing"
    assert row["parameters_half"] < 0.85 * row["parameters"]


@pytest.mark.parametrize("kind", ["BertBackbone", "RobertaBackbone", "MiTBackbone"])
def test_stream_of_a_transformer_is_pruned_where_approximate_is_asked_for(kind):
    name = f"keras_hub.{kind}"
    row = verification.verify(name, BACKBONES[name], approximate=True, scopes=("layer",), ratios=(0.5,))
    assert row["approximate_groups"] > 0
    assert not row["exact"]
    assert row["largest_difference"] < 1e-4
    assert row["parameters_half"] < 0.4 * row["parameters"]


def test_heads_of_a_bert_block_are_pruned_and_the_ticket_is_plain_keras(tmp_path):
    model = verification.randomise(BACKBONES["keras_hub.BertBackbone"]())
    masked = tfprune.wrap(model)
    attention = [name for name in tfprune.get_masks(masked) if name.endswith("self_attention_layer:head")]
    assert len(attention) == 2
    tfprune.set_masks(masked, tfprune.compute_masks(masked, dict.fromkeys(attention, 0.75)))
    ticket = tfprune.shrink(masked)
    layer = ticket.get_layer(attention[0].removesuffix(":head"))
    assert isinstance(layer, keras.layers.MultiHeadAttention)
    assert (layer.num_heads, layer.key_dim) == (1, 8)
    assert not any(type(part).__name__ == "TransformerEncoder" for part in ticket.layers)
