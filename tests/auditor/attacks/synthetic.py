"""Observations with a known null and a known optimal attack."""

import numpy as np

from auditor.attacks.observation import Observation


def logits_with(phi, labels, classes):
    """Return logits whose logit-scaled confidence is exactly phi up to float32."""
    logits = np.zeros((*phi.shape, classes))
    where = np.broadcast_to(labels, phi.shape)[..., None]
    np.put_along_axis(logits, where, phi[..., None] + np.log(classes - 1), axis=-1)
    return logits.astype(np.float32)


def gaussian(
    generator,
    *,
    forgotten=100,
    reference=400,
    shadows=16,
    classes=4,
    shift=0.0,
    hardness=2.0,
    features=4,
    with_forgotten=False,
    member_shift=0.0,
):
    """Every record's phi is normal over models: its own mean, standard deviation 1, plus `shift` if forgotten."""
    records = forgotten + reference
    forget = np.zeros(records, dtype=np.bool_)
    forget[generator.permutation(records)[:forgotten]] = True
    labels = generator.integers(0, classes, records)
    mean = generator.normal(1.0, hardness, records) + 0.5 * labels
    out = np.zeros((shadows, records), dtype=np.bool_)
    for record in range(records):
        out[generator.permutation(shadows)[: shadows // 2], record] = True
    if not with_forgotten:
        out[:, forget] = True
    shadow_phi = mean + generator.normal(size=(shadows, records)) + member_shift * ~out
    phi = mean + generator.normal(size=records) + shift * forget
    observation = Observation(
        logits=logits_with(phi, labels, classes),
        labels=labels,
        shadow_logits=logits_with(shadow_phi, labels, classes),
        out=out,
        features=generator.normal(size=(records, features)).astype(np.float32),
    )
    return observation, forget
