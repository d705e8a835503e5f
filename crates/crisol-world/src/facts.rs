//! The facts of the world, all of them true: countries, animals, materials, units.
//!
//! A fact is a subject, an attribute and one value. Attributes without a single clear answer are
//! left out, such as the language of a country with two official ones.

/// The attribute that a fact states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attribute {
    Capital,
    Continent,
    Currency,
    Language,
    Neighbour,
    Kind,
    Eats,
    Home,
    Legs,
    Source,
    Use,
    Unit,
    Measures,
}

/// All attributes, in the order of the tables.
pub(crate) const ATTRIBUTES: [Attribute; 13] = [
    Attribute::Capital,
    Attribute::Continent,
    Attribute::Currency,
    Attribute::Language,
    Attribute::Neighbour,
    Attribute::Kind,
    Attribute::Eats,
    Attribute::Home,
    Attribute::Legs,
    Attribute::Source,
    Attribute::Use,
    Attribute::Unit,
    Attribute::Measures,
];

/// One fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fact {
    /// What is stated about the subject.
    pub(crate) attribute: Attribute,
    /// "France", "lion", "wool", "minute".
    pub(crate) subject: &'static str,
    /// The subject's plural; empty except for animals.
    pub(crate) plural: &'static str,
    /// The smaller unit; empty except for units.
    pub(crate) parts: &'static str,
    /// The answer: "Paris", "mammal", "60".
    pub(crate) value: &'static str,
}

struct Country {
    name: &'static str,
    capital: &'static str,
    continent: &'static str,
    currency: &'static str,
    language: Option<&'static str>,
    /// Neighbours come in pairs: each is the other's neighbour.
    neighbour: Option<&'static str>,
}

const fn country(
    name: &'static str,
    capital: &'static str,
    continent: &'static str,
    currency: &'static str,
    language: &'static str,
    neighbour: &'static str,
) -> Country {
    let language = if language.is_empty() { None } else { Some(language) };
    let neighbour = if neighbour.is_empty() { None } else { Some(neighbour) };
    Country { name, capital, continent, currency, language, neighbour }
}

const COUNTRIES: [Country; 47] = [
    country("France", "Paris", "Europe", "euro", "French", "Germany"),
    country("Germany", "Berlin", "Europe", "euro", "German", "France"),
    country("Spain", "Madrid", "Europe", "euro", "Spanish", "Portugal"),
    country("Portugal", "Lisbon", "Europe", "euro", "Portuguese", "Spain"),
    country("Italy", "Rome", "Europe", "euro", "Italian", "Austria"),
    country("Austria", "Vienna", "Europe", "euro", "German", "Italy"),
    country("Poland", "Warsaw", "Europe", "zloty", "Polish", "Lithuania"),
    country("Lithuania", "Vilnius", "Europe", "euro", "Lithuanian", "Poland"),
    country("Czechia", "Prague", "Europe", "koruna", "Czech", "Slovakia"),
    country("Slovakia", "Bratislava", "Europe", "euro", "Slovak", "Czechia"),
    country("Hungary", "Budapest", "Europe", "forint", "Hungarian", "Romania"),
    country("Romania", "Bucharest", "Europe", "leu", "Romanian", "Hungary"),
    country("Greece", "Athens", "Europe", "euro", "Greek", ""),
    country("Sweden", "Stockholm", "Europe", "krona", "Swedish", "Norway"),
    country("Norway", "Oslo", "Europe", "krone", "Norwegian", "Sweden"),
    country("Denmark", "Copenhagen", "Europe", "krone", "Danish", ""),
    country("Iceland", "Reykjavik", "Europe", "krona", "Icelandic", ""),
    country("the United Kingdom", "London", "Europe", "pound", "English", "Ireland"),
    country("Ireland", "Dublin", "Europe", "euro", "", "the United Kingdom"),
    country("China", "Beijing", "Asia", "yuan", "Chinese", "India"),
    country("India", "New Delhi", "Asia", "rupee", "", "China"),
    country("Thailand", "Bangkok", "Asia", "baht", "Thai", ""),
    country("Vietnam", "Hanoi", "Asia", "dong", "Vietnamese", ""),
    country("Japan", "Tokyo", "Asia", "yen", "Japanese", ""),
    country("South Korea", "Seoul", "Asia", "won", "Korean", ""),
    country("Jordan", "Amman", "Asia", "dinar", "Arabic", ""),
    country("Egypt", "Cairo", "Africa", "pound", "Arabic", ""),
    country("Morocco", "Rabat", "Africa", "dirham", "", ""),
    country("Ghana", "Accra", "Africa", "cedi", "English", ""),
    country("Nigeria", "Abuja", "Africa", "naira", "English", ""),
    country("Kenya", "Nairobi", "Africa", "shilling", "", ""),
    country("Mexico", "Mexico City", "North America", "peso", "Spanish", "the United States"),
    country("Guatemala", "Guatemala City", "North America", "quetzal", "Spanish", "Honduras"),
    country("Honduras", "Tegucigalpa", "North America", "lempira", "Spanish", "Guatemala"),
    country("Nicaragua", "Managua", "North America", "cordoba", "Spanish", "Costa Rica"),
    country("Costa Rica", "San Jose", "North America", "colon", "Spanish", "Nicaragua"),
    country("the United States", "Washington", "North America", "dollar", "English", "Mexico"),
    country("Cuba", "Havana", "North America", "peso", "Spanish", ""),
    country("Brazil", "Brasilia", "South America", "real", "Portuguese", "Uruguay"),
    country("Uruguay", "Montevideo", "South America", "peso", "Spanish", "Brazil"),
    country("Argentina", "Buenos Aires", "South America", "peso", "Spanish", "Chile"),
    country("Chile", "Santiago", "South America", "peso", "Spanish", "Argentina"),
    country("Colombia", "Bogota", "South America", "peso", "Spanish", "Venezuela"),
    country("Venezuela", "Caracas", "South America", "bolivar", "Spanish", "Colombia"),
    country("Peru", "Lima", "South America", "sol", "Spanish", "Ecuador"),
    country("Paraguay", "Asuncion", "South America", "guarani", "", ""),
    country("Ecuador", "Quito", "South America", "dollar", "Spanish", "Peru"),
];

struct Animal {
    name: &'static str,
    plural: &'static str,
    kind: &'static str,
    eats: &'static str,
    /// Where it lives, to follow "it lives in".
    home: &'static str,
    legs: Option<&'static str>,
}

const fn animal(
    name: &'static str,
    plural: &'static str,
    kind: &'static str,
    eats: &'static str,
    home: &'static str,
    legs: &'static str,
) -> Animal {
    let legs = if legs.is_empty() { None } else { Some(legs) };
    Animal { name, plural, kind, eats, home, legs }
}

const ANIMALS: [Animal; 46] = [
    animal("lion", "lions", "mammal", "meat", "the savanna", "four"),
    animal("wolf", "wolves", "mammal", "meat", "the forest", "four"),
    animal("panda", "pandas", "mammal", "bamboo", "the mountains", "four"),
    animal("koala", "koalas", "mammal", "leaves", "trees", "four"),
    animal("camel", "camels", "mammal", "grass", "the desert", "four"),
    animal("cow", "cows", "mammal", "grass", "barns", "four"),
    animal("horse", "horses", "mammal", "hay", "stables", "four"),
    animal("rabbit", "rabbits", "mammal", "grass", "burrows", "four"),
    animal("squirrel", "squirrels", "mammal", "nuts", "trees", "four"),
    animal("elephant", "elephants", "mammal", "leaves", "the savanna", "four"),
    animal("polar bear", "polar bears", "mammal", "seals", "the Arctic", "four"),
    animal("bat", "bats", "mammal", "insects", "caves", ""),
    animal("whale", "whales", "mammal", "krill", "the ocean", ""),
    animal("monkey", "monkeys", "mammal", "fruit", "the jungle", ""),
    animal("zebra", "zebras", "mammal", "grass", "the savanna", "four"),
    animal("giraffe", "giraffes", "mammal", "leaves", "the savanna", "four"),
    animal("tiger", "tigers", "mammal", "meat", "the jungle", "four"),
    animal("otter", "otters", "mammal", "fish", "rivers", "four"),
    animal("mole", "moles", "mammal", "worms", "tunnels", "four"),
    animal("dog", "dogs", "mammal", "meat", "kennels", "four"),
    animal("hedgehog", "hedgehogs", "mammal", "insects", "gardens", "four"),
    animal("goat", "goats", "mammal", "grass", "the mountains", "four"),
    animal("donkey", "donkeys", "mammal", "hay", "stables", "four"),
    animal("beaver", "beavers", "mammal", "bark", "rivers", "four"),
    animal("dolphin", "dolphins", "mammal", "fish", "the sea", ""),
    animal("chicken", "chickens", "bird", "grain", "coops", "two"),
    animal("parrot", "parrots", "bird", "fruit", "the jungle", "two"),
    animal("sparrow", "sparrows", "bird", "seeds", "gardens", "two"),
    animal("penguin", "penguins", "bird", "fish", "the Antarctic", "two"),
    animal("eagle", "eagles", "bird", "meat", "the mountains", "two"),
    animal("owl", "owls", "bird", "mice", "the forest", "two"),
    animal("duck", "ducks", "bird", "water plants", "ponds", "two"),
    animal("crocodile", "crocodiles", "reptile", "meat", "rivers", "four"),
    animal("snake", "snakes", "reptile", "mice", "the grass", ""),
    animal("lizard", "lizards", "reptile", "insects", "the desert", "four"),
    animal("newt", "newts", "amphibian", "worms", "ponds", "four"),
    animal("frog", "frogs", "amphibian", "insects", "ponds", "four"),
    animal("toad", "toads", "amphibian", "insects", "gardens", "four"),
    animal("shark", "sharks", "fish", "fish", "the sea", ""),
    animal("bee", "bees", "insect", "nectar", "hives", "six"),
    animal("ant", "ants", "insect", "seeds", "nests", "six"),
    animal("beetle", "beetles", "insect", "leaves", "the forest", "six"),
    animal("butterfly", "butterflies", "insect", "nectar", "meadows", "six"),
    animal("grasshopper", "grasshoppers", "insect", "grass", "meadows", "six"),
    animal("scorpion", "scorpions", "arachnid", "insects", "the desert", "eight"),
    animal("spider", "spiders", "arachnid", "insects", "webs", "eight"),
];

/// Material, source, use.
const MATERIALS: [(&str, &str, &str); 29] = [
    ("wool", "sheep", "sweaters"),
    ("leather", "animal skins", "shoes"),
    ("paper", "wood", "books"),
    ("glass", "sand", "windows"),
    ("silk", "silkworms", "scarves"),
    ("linen", "flax", "tablecloths"),
    ("rubber", "tree sap", "tyres"),
    ("steel", "iron", "bridges"),
    ("plastic", "oil", "bottles"),
    ("wax", "bees", "candles"),
    ("flour", "wheat", "cakes"),
    ("cork", "oak bark", "stoppers"),
    ("cheese", "milk", "pizzas"),
    ("chocolate", "cocoa beans", "sweets"),
    ("brick", "clay", "walls"),
    ("porcelain", "kaolin", "cups"),
    ("butter", "cream", "sandwiches"),
    ("honey", "beehives", "desserts"),
    ("jam", "berries", "pancakes"),
    ("salt", "sea water", "pretzels"),
    ("gold", "mines", "rings"),
    ("bronze", "copper", "statues"),
    ("marble", "quarries", "columns"),
    ("timber", "trees", "houses"),
    ("denim", "cotton", "jeans"),
    ("aluminium", "bauxite", "cans"),
    ("concrete", "cement", "dams"),
    ("vinegar", "wine", "pickles"),
    ("ketchup", "tomatoes", "burgers"),
];

/// Unit, smaller unit, how many of it make one, measured quantity.
const UNITS: [(&str, &str, &str, &str); 24] = [
    ("minute", "seconds", "60", "time"),
    ("hour", "minutes", "60", "time"),
    ("day", "hours", "24", "time"),
    ("week", "days", "7", "time"),
    ("fortnight", "days", "14", "time"),
    ("season", "months", "3", "time"),
    ("year", "months", "12", "time"),
    ("decade", "years", "10", "time"),
    ("century", "years", "100", "time"),
    ("centimetre", "millimetres", "10", "length"),
    ("metre", "centimetres", "100", "length"),
    ("kilometre", "metres", "1000", "length"),
    ("foot", "inches", "12", "length"),
    ("yard", "feet", "3", "length"),
    ("fathom", "feet", "6", "length"),
    ("gram", "milligrams", "1000", "weight"),
    ("kilogram", "grams", "1000", "weight"),
    ("ton", "kilograms", "1000", "weight"),
    ("litre", "millilitres", "1000", "volume"),
    ("gallon", "pints", "8", "volume"),
    ("tablespoon", "teaspoons", "3", "volume"),
    ("kilowatt", "watts", "1000", "power"),
    ("kilocalorie", "calories", "1000", "energy"),
    ("byte", "bits", "8", "data"),
];

/// Every fact, subject by subject.
pub(crate) fn facts() -> Vec<Fact> {
    let mut facts = Vec::new();
    for country in &COUNTRIES {
        let mut add = |attribute, value| {
            facts.push(Fact { attribute, subject: country.name, plural: "", parts: "", value });
        };
        add(Attribute::Capital, country.capital);
        add(Attribute::Continent, country.continent);
        add(Attribute::Currency, country.currency);
        if let Some(language) = country.language {
            add(Attribute::Language, language);
        }
        if let Some(neighbour) = country.neighbour {
            add(Attribute::Neighbour, neighbour);
        }
    }
    for animal in &ANIMALS {
        let mut add = |attribute, value| {
            facts.push(Fact {
                attribute,
                subject: animal.name,
                plural: animal.plural,
                parts: "",
                value,
            });
        };
        add(Attribute::Kind, animal.kind);
        add(Attribute::Eats, animal.eats);
        add(Attribute::Home, animal.home);
        if let Some(legs) = animal.legs {
            add(Attribute::Legs, legs);
        }
    }
    for (subject, source, purpose) in MATERIALS {
        facts.push(Fact {
            attribute: Attribute::Source,
            subject,
            plural: "",
            parts: "",
            value: source,
        });
        facts.push(Fact {
            attribute: Attribute::Use,
            subject,
            plural: "",
            parts: "",
            value: purpose,
        });
    }
    for (subject, parts, value, measured) in UNITS {
        facts.push(Fact { attribute: Attribute::Unit, subject, plural: "", parts, value });
        facts.push(Fact {
            attribute: Attribute::Measures,
            subject,
            plural: "",
            parts: "",
            value: measured,
        });
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::{Attribute, facts};

    #[test]
    fn neighbours_are_mutual() {
        let facts = facts();
        let next_to: Vec<_> =
            facts.iter().filter(|f| f.attribute == Attribute::Neighbour).collect();
        assert!(next_to.len() >= 30);
        for fact in &next_to {
            let back = next_to.iter().find(|other| other.subject == fact.value);
            assert_eq!(back.map(|other| other.value), Some(fact.subject), "{}", fact.subject);
        }
    }

    #[test]
    fn each_subject_and_attribute_has_one_value() {
        let facts = facts();
        for (i, fact) in facts.iter().enumerate() {
            assert!(!fact.value.is_empty());
            let same_attribute = |other: &&super::Fact| {
                other.subject == fact.subject && other.attribute == fact.attribute
            };
            assert_eq!(
                facts.iter().filter(same_attribute).count(),
                1,
                "{} {:?} (no. {i})",
                fact.subject,
                fact.attribute
            );
        }
    }

    #[test]
    fn a_capital_belongs_to_one_country() {
        let facts = facts();
        let capitals: Vec<_> = facts.iter().filter(|f| f.attribute == Attribute::Capital).collect();
        for fact in &capitals {
            assert_eq!(
                capitals.iter().filter(|other| other.value == fact.value).count(),
                1,
                "{}",
                fact.value
            );
        }
    }
}
