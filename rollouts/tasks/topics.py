"""Three short sentences on each of some topics: no commas, five to seven words, the first names it."""

TOPICS: dict[str, tuple[str, str, str]] = {
    "rain": (
        "Rain falls from the dark clouds.",
        "It helps the plants to grow.",
        "Many people open an umbrella then.",
    ),
    "bread": (
        "Bread is made from simple flour.",
        "It smells best when still warm.",
        "We eat it with some butter.",
    ),
    "dogs": (
        "Dogs like to run outside together.",
        "They bark when a stranger comes.",
        "Most of them love their people.",
    ),
    "cats": (
        "Cats sleep for most of the day.",
        "They hunt small mice at night.",
        "A happy one purrs very softly.",
    ),
    "trains": (
        "Trains carry many people every day.",
        "They run on two steel rails.",
        "Some of them are very fast.",
    ),
    "books": (
        "Books tell stories of other lives.",
        "We can borrow them for free.",
        "A good one stays with us.",
    ),
    "winter": (
        "Winter is the coldest season here.",
        "The days are short and dark.",
        "Children hope for some fresh snow.",
    ),
    "summer": (
        "Summer brings long and warm days.",
        "Many families travel to the sea.",
        "Ice cream tastes best right then.",
    ),
    "music": (
        "Music makes long evenings feel short.",
        "People sing and dance to it.",
        "It can cheer up anyone quickly.",
    ),
    "trees": (
        "Trees give us shade and fruit.",
        "Their roots hold the soil firmly.",
        "Birds build their nests in them.",
    ),
    "rivers": (
        "Rivers flow from hills to seas.",
        "They bring water to dry fields.",
        "Fish and ducks live in them.",
    ),
    "bees": (
        "Bees fly from flower to flower.",
        "They make sweet honey all summer.",
        "Without them fruit would be rare.",
    ),
    "coffee": (
        "Coffee wakes many people each morning.",
        "It is brewed with hot water.",
        "Some drink it with warm milk.",
    ),
    "tea": (
        "Tea is made from dried leaves.",
        "You pour hot water over it.",
        "It warms the hands and heart.",
    ),
    "football": (
        "Football is played by two teams.",
        "Each one tries to score goals.",
        "Fans cheer loudly at every match.",
    ),
    "chess": (
        "Chess is a game of thought.",
        "Two players move pieces in turn.",
        "A lost queen hurts quite badly.",
    ),
    "the moon": (
        "The moon shines brightly at night.",
        "It goes around our blue planet.",
        "Only twelve people have walked there.",
    ),
    "the sea": (
        "The sea is deep and salty.",
        "Ships cross it with heavy loads.",
        "Whales sing in its dark water.",
    ),
    "mountains": (
        "Mountains rise high above the valleys.",
        "Their tops are covered in snow.",
        "Climbers need strong boots and ropes.",
    ),
    "gardens": (
        "Gardens need water and some care.",
        "Roses bloom there in early June.",
        "Snails eat the young green leaves.",
    ),
    "school": (
        "School teaches children to read well.",
        "They meet good friends there too.",
        "The long break is always fun.",
    ),
    "bicycles": (
        "Bicycles have two wheels and pedals.",
        "They need neither fuel nor noise.",
        "Riding one keeps you quite fit.",
    ),
    "apples": (
        "Apples grow on trees in autumn.",
        "They can be red or green.",
        "Bakers turn them into warm pies.",
    ),
    "clocks": (
        "Clocks show us the exact time.",
        "Old ones tick rather loudly indeed.",
        "Without them we would be late.",
    ),
}
