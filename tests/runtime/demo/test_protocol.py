"""The protocols beside the scores."""

from __future__ import annotations

from edgepure.demo.scores import Protocol


def test_protocol_sentence_names_everything() -> None:
    protocol = Protocol(
        images="128 test images",
        decision="majority of 5 purifications",
        seeds={"noise": 7, "attack": 8},
        attack="PGD-EOT",
        norm="Linf",
        eps=0.05,
        steps=15,
        step_size=0.0125,
        random_start=True,
        eot=3,
        gradient="exact",
        target="the whole pipeline",
        note="Mask detached.",
    )
    assert protocol.sentence() == (
        "PGD-EOT, Linf, eps 0.05, 15 steps of 0.0125, random start; EOT 3; on the whole pipeline; gradient: exact; "
        "128 test images; majority of 5 purifications; seeds: noise 7, attack 8. Mask detached."
    )
    assert protocol.to_dict()["eot"] == 3


def test_protocol_of_clean_images_names_no_attack() -> None:
    assert Protocol(images="5 images", decision="one answer").sentence() == "5 images; one answer."
