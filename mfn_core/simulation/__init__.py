"""A simulated world: raw logs of both views and a users table, with effects planted that a model should find.

Every user has a preference over *interests*; each app category and each item category belongs to one. The micro preference of users
who *agree* comes from their macro preference; that of the others is independent. A *code* is the mean of +1 and -1 over a user's
interests. ``RECIPES`` holds the strengths. Unless a world says otherwise, nobody agrees, no app foretells an item, activity and
gender add a macro and a micro code, and of age a macro code tells the older half, a micro code the upper group of each half.

* ``agreement``: half of the users agree, and that decides activity. Each view alone looks the same in both halves.
* ``product``: gender, half and group are products of a macro code and a micro code.
* ``foretelling``: 60 % of item events follow, within the hour and after the item before, an app event whose place among its
  category's apps names the item's category. The app's own category is an ordinary one of the user.
* ``mixed``, the default: half of the users agree, which decides activity, with a micro code; gender is a product plus a macro code, the
  group of age a product; 35 % of item events are foretold. ``one_view``: the same, a third of the users having one view only.
* ``additive``: activity comes from a micro code alone, so that the macro view adds nothing to it; to gender and age each view adds its
  part. Products of the views bring nothing anywhere.
* ``correspondence``: 60 % of a micro preference is the macro preference pushed through a dense random matrix, the rest is the user's
  own. Rank correlation of ``World.correspondence`` with the covariances of category shares .86 to .92.

A user visits the content app in spells of whole weeks, from arrival on: the process knows no cut. Sessions are longer where they are
fewer, so the number of events tells little. 37 to 49 % of users are active in the last 7 days. 30 % of item events are the fixed
successor of the item before (a cycle through each category), the others follow the preference, and Zipf popularity in the category.

Reached with 3,000 users, seed 0. AUC (age: mean one-vs-rest) of the planted *odds* (without recency), and in five folds of the better of
logistic regression and gradient boosting on category shares: better *one* view, *both*, both and their *cross* products. HR@10 of
bigrams with the user's *taste* in categories, and of what the last *app* tells. (``one_view``: activity of users with item events.)::

                    activity             gender               age group            next item
                    odds one both cross  odds one both cross  odds one both cross  taste app
    mixed            .88 .60  .82   .84   .96 .74  .78   .84   .95 .82  .85   .85    .46 .55
    agreement        .89 .61  .87   .89   .93 .79  .86   .87   .95 .81  .89   .88    .46 .46
    product          .87 .76  .83   .83   .95 .62  .68   .77   .96 .58  .69   .77    .45 .45
    foretelling      .87 .76  .83   .83   .92 .75  .87   .87   .95 .76  .88   .88    .45 .59
    additive         .86 .84  .84   .84   .92 .75  .85   .85   .95 .77  .89   .89    .46 .46
    one_view         .88 .56  .79   .80   .97 .75  .78   .80   .94 .80  .82   .82    .46 .53
    correspondence   .85 .73  .79   .79   .91 .70  .76   .76   .94 .77  .83   .83    .36 .36

Also: sessions, a daily and a weekly cycle, newcomers (60 %) who arrive during the first 60 % of the days, 3 % of users with
about three events, 5 % with one view only, 2 % of attributes missing. All rows are valid under the contract.

Reading order: ``recipes`` what is planted -> ``catalogue`` apps and items -> ``population`` users -> ``events`` -> ``tables``.
"""

from datetime import UTC, datetime, time

import numpy as np

from mfn_core.config import SimulationConfig
from mfn_core.errors import ConfigError
from mfn_core.schema import APP_LOGS, ITEM_LOGS
from mfn_core.simulation.catalogue import APP_CATEGORIES, ITEM_CATEGORIES, draw_catalogue, name_categories, numbered
from mfn_core.simulation.events import draw_app_events, draw_item_events
from mfn_core.simulation.population import DAY, draw_population
from mfn_core.simulation.recipes import RECIPES, Recipe, Trait
from mfn_core.simulation.tables import World, correspondence_table, log_table, users_table

__all__ = ["RECIPES", "Recipe", "Trait", "World", "simulate"]


def simulate(config: SimulationConfig) -> World:
    """Simulate a world. The same config gives the same tables.

    Raises:
        ConfigError: fewer apps or items than categories to put them in.
    """
    _check(config)
    recipe = RECIPES[config.world]
    rng = np.random.default_rng(config.seed)
    num_interests = min(config.num_app_categories, config.num_item_categories)
    app_categories = name_categories(APP_CATEGORIES, config.num_app_categories)
    item_categories = name_categories(ITEM_CATEGORIES, config.num_item_categories)
    apps = draw_catalogue(rng, "com.{category}.app{number}", config.num_apps, app_categories, num_interests)
    items = draw_catalogue(rng, "i{number}", config.num_items, item_categories, num_interests)
    population = draw_population(rng, config, num_interests)

    micro = draw_item_events(rng, config, population, items)
    macro = draw_app_events(rng, config, population, apps, items.category_of[micro.entries], micro)

    user_names = np.array([f"u{numbered(user, max(config.num_users, 100_000))}" for user in range(config.num_users)])
    midnight = int(datetime.combine(config.last_day, time(), UTC).timestamp()) - (config.num_days - 1) * DAY
    return World(
        app_logs=log_table(rng, APP_LOGS, macro, apps, user_names, midnight),
        item_logs=log_table(rng, ITEM_LOGS, micro, items, user_names, midnight),
        users=users_table(rng, recipe, population, user_names),
        correspondence=correspondence_table(recipe.agreeing_share * (1 - recipe.own_part) * population.link, apps, items),
    )


def _check(config: SimulationConfig) -> None:
    for entries, categories in (("num_apps", "num_app_categories"), ("num_items", "num_item_categories")):
        count, limit = getattr(config, entries), getattr(config, categories)
        if count < limit:
            raise ConfigError(f"{entries}={count} is less than {categories}={limit}: a category would be empty; raise {entries}")
