"""What is planted in each world."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Trait:
    """The log-odds of a trait of a user: what each term is multiplied by.

    A code is the mean of a view's +1 and -1 over the user's interests; the two macro codes differ.
    """

    constant: float = 0.0
    agreement: float = 0.0  # times +1 in agreement, -1 in disagreement
    macro: float = 0.0  # times a macro code
    micro: float = 0.0  # times a micro code
    product: float = 0.0  # times another macro code times the micro code


@dataclass(frozen=True)
class Recipe:
    """What is planted in a world; by default nothing that takes both views at once.

    Some constants balance the classes: with the default ten interests a code is below zero on average.
    """

    agreeing_share: float = 0.0  # users whose micro preference comes from their macro preference
    foretold_share: float = 0.0  # item events that an app event foretells
    stay: Trait = Trait(1.2, macro=3.2, micro=3.2)  # another week of visits after a week of them
    back: Trait = Trait(-0.4, macro=2.4, micro=2.4)  # a week of visits after a week without
    male: Trait = Trait(1.5, macro=4.0, micro=4.0)
    older: Trait = Trait(1.2, macro=7.0)  # 35 and more
    upper: Trait = Trait(1.2, micro=7.0)  # the upper group of the younger, of the older
    graded: bool = False  # an interest leads to many interests of the other view, not to the same one
    own_part: float = 0.0  # of an agreeing user's micro preference that comes from elsewhere
    one_view_share: float = 0.05


_MIXED = Recipe(
    agreeing_share=0.5,
    foretold_share=0.35,
    stay=Trait(0.5, agreement=2.2, micro=1.2),
    back=Trait(-1.2, agreement=1.2, micro=0.8),
    male=Trait(macro=4.0, product=18.0),
    older=Trait(macro=7.0),
    upper=Trait(product=16.0),
)
RECIPES = {
    "mixed": _MIXED,
    "agreement": Recipe(agreeing_share=0.5, stay=Trait(0.5, agreement=2.6), back=Trait(-1.2, agreement=1.6)),
    "product": Recipe(male=Trait(product=22.0), older=Trait(product=22.0), upper=Trait(product=22.0)),
    "foretelling": Recipe(foretold_share=0.6),
    "additive": Recipe(stay=Trait(0.6, micro=4.2), back=Trait(-0.8, micro=3.2)),
    "one_view": replace(_MIXED, one_view_share=1 / 3),
    "correspondence": Recipe(
        agreeing_share=1.0,
        graded=True,
        own_part=0.4,
        stay=Trait(1.2, macro=3.0, micro=7.0),
        back=Trait(-0.4, macro=2.0, micro=5.0),
        male=Trait(2.5, macro=3.0, micro=10.0),
        upper=Trait(2.5, micro=16.0),
    ),
}
