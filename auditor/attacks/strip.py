"""A6: what comes back if the patch is taken off.

Proves: the membership signal of the unpatched base, which whoever holds base and patch, or the composed file,
has at hand: the patch stands at its end.
Assumes: the base was assessed with the same shadow models and control draws as the patched model.
Does not: fail anybody: a patch changes no weight of the base, and its certificate does not say so.
"""

from dataclasses import dataclass
from types import MappingProxyType

from auditor.attacks.observation import Unavailable
from auditor.attacks.properties import Property
from auditor.attacks.result import Form, MembershipAssessment
from protocol.errors import AuditorError


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchStrip:
    """One attack's difference from its control on the base, beside that on the patched model.

    Attributes:
        attack: which one; fixed beforehand, so that the interval holds.
        form: signed or distance.
    """

    attack: str = "lira-offline"
    form: Form = "signed"

    def __call__(self, base: MembershipAssessment, patched: MembershipAssessment) -> Property | Unavailable:
        """Return the base's difference.

        Args:
            base: the assessment of the unpatched base.
            patched: the assessment of the patched model on the same records.
        """
        try:
            off, on = (one.comparison(self.attack, self.form) for one in (base, patched))
        except AuditorError:
            reasons = [*base.reasons[:1], *patched.reasons[:1]]
            return Unavailable(reason=f"{self.attack} ({self.form}) was not run: {'; '.join(reasons)}")
        return Property(
            name="patch-strip",
            quantity="AUC on the stripped base, less its control",
            value=off.difference.value,
            low=off.equivalence.low,
            high=off.equivalence.high,
            reading=f"With the patch off, {self.attack} ({self.form}) has AUC {off.difference.auc:.3f} "
            f"(control {off.difference.expected:.3f}); with it on, {on.difference.auc:.3f}.",
            settings=f"{self!r}: {off.settings}",
            per_record=off.scores,
            facts=MappingProxyType({"auc_base": off.difference.auc, "auc_patched": on.difference.auc}),
        )
