//! Questions that nothing in the world answers, and the honest reply.
//!
//! Two sorts: a known question about a subject that the world does not have (a real one or a name
//! made up here), and a question of a sort that the world never answers ("How old is Ana?").
//! Subjects, people and question wordings of `dev` and `test` are held out of training.

use crate::facts::{ATTRIBUTES, Attribute, Fact, facts};
use crate::loose_questions::loose_question;
use crate::rng::{Rng, fnv1a};
use crate::splits::{Pool, Split};
use crate::wording::{Names, render, wording};
use crate::words::{PEOPLE, PLACES, alternative, fill};

/// The honest reply.
pub const UNKNOWN_REPLY: &str = "I do not know that.";

/// A question without an answer.
pub(crate) struct UnknownQuestion {
    pub(crate) prompt: String,
    /// A made-up reply in the form of an answer.
    pub(crate) invented: String,
    nearest: Nearest,
}

/// What the world has that is nearest to what an unknown question asks for.
enum Nearest {
    /// The asked attribute of other subjects.
    Attribute(Attribute),
    /// Other attributes of the subject.
    Subject(&'static str),
    /// Nothing.
    Nothing,
}

impl UnknownQuestion {
    /// One of the `facts` nearest to the question: true, but no answer.
    pub(crate) fn beside(&self, facts: &[Fact], rng: &mut Rng) -> Fact {
        let is_near = |fact: &&Fact| match self.nearest {
            Nearest::Attribute(attribute) => fact.attribute == attribute,
            Nearest::Subject(subject) => fact.subject == subject,
            Nearest::Nothing => false,
        };
        let near: Vec<Fact> = facts.iter().filter(is_near).copied().collect();
        *rng.choose(if near.is_empty() { facts } else { &near })
    }
}

/// Share of the held-out questions about a subject that the world does not have.
const ABOUT_SUBJECTS: f64 = 0.8;
/// Share of these in training, which needs as many of the sorts that the world never answers.
const TRAINING_ABOUT_SUBJECTS: f64 = 0.7;
/// Share of these whose subject is made up.
const MADE_UP: f64 = 0.4;
/// Share of the held-out questions about subjects that have a held-out wording.
const HELD_OUT_WORDINGS: f64 = 0.5;
/// Share of the training questions about subjects in loose words.
const LOOSE_WORDINGS: f64 = 0.25;

/// A question for one split.
pub(crate) fn unknown_question(split: Split, rng: &mut Rng) -> UnknownQuestion {
    let about_subjects = match split {
        Split::Train => TRAINING_ABOUT_SUBJECTS,
        Split::Dev | Split::Test => ABOUT_SUBJECTS,
    };
    if rng.chance(about_subjects) {
        about_an_unknown_subject(split, rng)
    } else {
        of_an_unknown_sort(split, rng)
    }
}

/// Real countries that the world does not have.
const COUNTRIES: &str = "\
     Albania|Latvia|Estonia|Mongolia|Laos|Cambodia|Nepal|Bangladesh|Libya|Tunisia|Jamaica|\
     Australia|Canada|Russia|Ukraine|Turkey|Finland|Belgium|Croatia|Serbia|Bulgaria|Slovenia|\
     Moldova|Belarus|Malta|Cyprus|Bolivia|Panama|El Salvador|Haiti|Belize|Guyana|Suriname|\
     Algeria|Sudan|Chad|Mali|Niger|Senegal|Gambia|Guinea|Togo|Benin|Cameroon|Gabon|Congo|\
     Angola|Zambia|Zimbabwe|Namibia|Botswana|Mozambique|Malawi|Tanzania|Uganda|Rwanda|\
     Ethiopia|Somalia|Yemen|Oman|Qatar|Kuwait|Iraq|Iran|Syria|Lebanon|Georgia|Armenia|\
     Kazakhstan|Pakistan|Myanmar|Malaysia";

/// Real animals that the world does not have, with their plurals.
const ANIMALS: &str = "\
     walrus/walruses|gorilla/gorillas|lynx/lynxes|badger/badgers|hamster/hamsters|\
     ferret/ferrets|llama/llamas|alpaca/alpacas|jaguar/jaguars|puma/pumas|hyena/hyenas|\
     hippo/hippos|gazelle/gazelles|seagull/seagulls|pelican/pelicans|flamingo/flamingos|\
     ostrich/ostriches|raven/ravens|swan/swans|turkey/turkeys|pigeon/pigeons|stork/storks|\
     turtle/turtles|iguana/iguanas|gecko/geckos|salamander/salamanders|octopus/octopuses|\
     crab/crabs|lobster/lobsters|wasp/wasps|cricket/crickets|moth/moths|mosquito/mosquitoes|\
     snail/snails|kangaroo/kangaroos|platypus/platypuses|cheetah/cheetahs|leopard/leopards|\
     antelope/antelopes|weasel/weasels|hare/hares|ladybird/ladybirds|dragonfly/dragonflies|\
     vulture/vultures|toucan/toucans|rhino/rhinos";

/// Real materials that the world does not have.
const MATERIALS: &str = "\
     nylon|velvet|ivory|amber|graphite|asphalt|tin|zinc|nickel|mercury|platinum|gypsum|chalk|\
     felt|canvas|satin|soap|tofu|yoghurt|caramel|mustard|coal|petrol";

/// Real units that the world does not have, with a smaller unit.
const UNITS: &str = "\
     parsec/miles|furlong/yards|mile/yards|acre/square feet|hectare/square metres|\
     barrel/gallons|ounce/drams|knot/miles|joule/ergs|megabyte/kilobytes|millennium/decades|\
     dozen/pieces";

/// Syllables of made-up names.
const SYLLABLES: &str = "\
     zor|bel|qua|mir|tov|lun|dra|fen|gri|hal|jup|kel|nov|pli|rud|sco|vax|wem|yat|bru|cal|dol|\
     esk|fro|gam|hix|ilt|jor|kri|mop";

/// The split of a subject or a name, from its hash: 15 % dev, 15 % test.
fn split_of_name(name: &str) -> Split {
    match fnv1a(name.as_bytes()) % 20 {
        0..=2 => Split::Dev,
        3..=5 => Split::Test,
        _ => Split::Train,
    }
}

/// Draws names until one is of the split; `draw` gives a name and what goes with it.
fn of_split(
    split: Split,
    rng: &mut Rng,
    draw: impl Fn(&mut Rng) -> (String, String),
) -> (String, String) {
    loop {
        let drawn = draw(rng);
        if split_of_name(&drawn.0) == split {
            return drawn;
        }
    }
}

/// A real subject of the table and what stands beside it there.
fn real(table: &str, split: Split, rng: &mut Rng) -> (String, String) {
    of_split(split, rng, |rng| {
        let entry = alternative(rng, table);
        let (name, beside) = entry.split_once('/').unwrap_or((entry, ""));
        (name.to_owned(), beside.to_owned())
    })
}

/// One or two syllables and an ending, and the plural.
fn made_up(endings: &str, split: Split, rng: &mut Rng) -> (String, String) {
    of_split(split, rng, |rng| {
        let stem: String = (0..rng.range(1, 2)).map(|_| alternative(rng, SYLLABLES)).collect();
        let name = stem + alternative(rng, endings);
        let plural = format!("{name}s");
        (name, plural)
    })
}

fn about_an_unknown_subject(split: Split, rng: &mut Rng) -> UnknownQuestion {
    let attribute = *rng.choose(&ATTRIBUTES);
    let made_up = |endings, rng: &mut Rng| made_up(endings, split, rng);
    let real = |table, rng: &mut Rng| real(table, split, rng);
    let is_made_up = rng.chance(MADE_UP);
    let (subject, plural, parts) = match attribute {
        Attribute::Capital
        | Attribute::Continent
        | Attribute::Currency
        | Attribute::Language
        | Attribute::Neighbour => {
            let subject = if is_made_up {
                fill(&made_up("ia|onia|land|stan|ador|uay", rng).0, &[])
            } else {
                real(COUNTRIES, rng).0
            };
            (subject, String::new(), String::new())
        }
        Attribute::Source | Attribute::Use => {
            let (subject, _) =
                if is_made_up { made_up("ium|ine|ette|ex", rng) } else { real(MATERIALS, rng) };
            (subject, String::new(), String::new())
        }
        Attribute::Unit | Attribute::Measures => {
            let (unit, parts) = real(UNITS, rng);
            let unit = if is_made_up { made_up("on|ik|um", rng).0 } else { unit };
            (unit, String::new(), parts)
        }
        Attribute::Kind | Attribute::Eats | Attribute::Home | Attribute::Legs => {
            let (animal, plural) =
                if is_made_up { made_up("ard|elo|ling|ok", rng) } else { real(ANIMALS, rng) };
            (animal, plural, String::new())
        }
    };
    let names = Names { subject: &subject, plural: &plural, parts: &parts };
    let wording = wording(attribute);
    let question = match split {
        Split::Train if rng.chance(LOOSE_WORDINGS) => loose_question(attribute, rng),
        Split::Dev | Split::Test if rng.chance(HELD_OUT_WORDINGS) => {
            rng.choose_str(wording.held_out_questions).to_owned()
        }
        _ => rng.choose_str(wording.questions).to_owned(),
    };
    let values: Vec<&str> =
        facts().iter().filter(|fact| fact.attribute == attribute).map(|fact| fact.value).collect();
    UnknownQuestion {
        prompt: render(&question, names, "", ""),
        invented: render(wording.answer, names, rng.choose_str(&values), ""),
        nearest: Nearest::Attribute(attribute),
    }
}

/// Questions of a sort that the world never answers, each with the form of an answer. `P` and `Q`
/// are people, `L` a place, `N` a number, `S` a country, `p` animals, `w` a thing of the wider
/// world.
const SORTS: Pool<(&str, &str)> = Pool {
    train: &[
        ("how old is {P}?", "{P} is {N} years old."),
        ("when was {P} born?", "{P} was born in the year {N}."),
        ("what is the name of {P}'s sister?", "the sister of {P} is {Q}."),
        ("what is {P}'s telephone number?", "the number of {P} is {N}."),
        ("when is {P}'s birthday?", "the birthday of {P} is on day {N}."),
        ("what did {P} do yesterday?", "{P} was in {L}."),
        ("who is {P}'s best friend?", "the friend of {P} is {Q}."),
        ("what is my name?", "your name is {P}."),
        ("how old am I?", "you are {N} years old."),
        ("what is my telephone number?", "your number is {N}."),
        ("what time is it?", "it is {N} minutes after ten."),
        ("what day is it today?", "it is the day number {N}."),
        ("who wrote {w}?", "{P} wrote {w}."),
        ("who painted {w}?", "{P} painted {w}."),
        ("who invented {w}?", "{P} invented {w}."),
        ("when was {w} built?", "it was built in the year {N}."),
        ("how high is {w}?", "it is {N} metres high."),
        ("who is the president of {S}?", "the president of {S} is {P}."),
        ("how many people live in {S}?", "the number of people in {S} is {N}."),
        ("what is the highest mountain of {S}?", "the mountain is near {L}."),
        ("who is the best football player of {S}?", "the best player is {P}."),
        ("how long do {p} live?", "{p} live for {N} years."),
        ("how fast are {p}?", "{p} run {N} kilometres."),
        ("what colour are {p}?", "{p} have {N} colours."),
        ("how big are {p}?", "{p} are {N} feet long."),
        ("how many eggs do {p} lay?", "{p} lay {N} eggs."),
        ("when do {p} sleep?", "{p} sleep for {N} hours."),
        ("how far do {p} walk in a day?", "{p} walk {N} kilometres."),
        ("what are {p} afraid of?", "{p} are afraid of {P}."),
        ("how large is {S}?", "{S} has {N} lakes."),
        ("what is the weather like in {S}?", "it is warm near {L}."),
        ("what is the best food in {S}?", "the best food is near {L}."),
        ("how many brothers does {P} have?", "{P} has {N} brothers."),
        ("where does {P} work?", "{P} works near {L}."),
        ("how much does {w} cost?", "it costs {N} coins."),
        ("which number am I thinking of?", "the number is {N}."),
    ],
    dev: &[
        ("how tall is {P}?", "{P} is {N} feet tall."),
        ("who are {P}'s parents?", "the parents are {P} and {Q}."),
        ("who discovered {w}?", "{P} discovered {w}."),
        ("who is the king of {S}?", "the king of {S} is {P}."),
        ("how much do {p} weigh?", "{p} weigh {N} kilograms."),
        ("what did I eat yesterday?", "you had {N} rolls."),
    ],
    test: &[
        ("how heavy is {P}?", "{P} has {N} kilograms."),
        ("what is the name of {P}'s dog?", "the dog of {P} is {Q}."),
        ("who composed {w}?", "{P} composed {w}."),
        ("what is the longest river of {S}?", "the river is near {L}."),
        ("how many teeth do {p} have?", "{p} have {N} teeth."),
        ("where did I leave my keys?", "your keys are in {L}."),
    ],
};

/// Things of the wider world, by split.
const WIDER_WORLD: Pool<&str> = Pool {
    train: &["\
         Don Quixote|the Mona Lisa|the telephone|the Eiffel Tower|the radio|Hamlet|\
         the Great Wall|the bicycle|the steam engine|Guernica|the Sagrada Familia|\
         the first computer|the Odyssey|the moon rocket|the tower of Pisa|the ninth symphony|\
         the printing press|the Alhambra"],
    dev: &["Macbeth|the light bulb|the Colosseum|penicillin|the Magic Flute"],
    test: &["the Iliad|the aeroplane|Machu Picchu|the opera Carmen|the Taj Mahal"],
};

fn of_an_unknown_sort(split: Split, rng: &mut Rng) -> UnknownQuestion {
    let (question, answer) = *rng.choose(SORTS.get(split));
    let people = PEOPLE.get(split);
    let order = rng.permutation(people.len());
    let subjects = |attribute: Attribute| {
        facts().into_iter().filter(move |fact| fact.attribute == attribute).collect::<Vec<_>>()
    };
    let place = rng.choose_str(&PLACES);
    let number = rng.range(2, 99).to_string();
    let country = *rng.choose(&subjects(Attribute::Capital));
    let animal = *rng.choose(&subjects(Attribute::Kind));
    let slots = [
        ("P", people[order[0]].name),
        ("Q", people[order[1]].name),
        ("L", place),
        ("N", &number),
        ("S", country.subject),
        ("p", animal.plural),
        ("w", alternative(rng, WIDER_WORLD.get(split)[0])),
    ];
    let nearest = match question {
        _ if question.contains("{S}") => Nearest::Subject(country.subject),
        _ if question.contains("{p}") => Nearest::Subject(animal.subject),
        _ => Nearest::Nothing,
    };
    UnknownQuestion { prompt: fill(question, &slots), invented: fill(answer, &slots), nearest }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_world_has_no_fact_about_an_unknown_subject() {
        let known: BTreeSet<&str> =
            facts().iter().flat_map(|fact| [fact.subject, fact.plural]).collect();
        for entry in [COUNTRIES, ANIMALS, MATERIALS, UNITS].iter().flat_map(|t| t.split('|')) {
            let name = entry.split('/').next();
            assert!(name.is_some_and(|name| !known.contains(name)), "{entry}");
        }
    }

    #[test]
    fn no_subject_or_wording_is_in_two_splits() {
        let mut rng = Rng::new("test");
        let mut prompts = [Split::Train, Split::Dev, Split::Test].map(|split| {
            (0..600).map(|_| unknown_question(split, &mut rng).prompt).collect::<BTreeSet<_>>()
        });
        for _ in 0..3 {
            prompts.rotate_left(1);
            assert!(prompts[0].is_disjoint(&prompts[1]));
        }
    }
}
