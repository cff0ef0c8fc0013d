"""Word banks of the embedded sample: phrases for each genre, written for this project, taken from no film's text.

A line is a kind and a phrase. Kinds: R a role (a noun phrase with its article), M a role of many people, S a setting
(an adverbial phrase), G a goal (a bare infinitive whose subject is the hero), E an event (a finite clause), B a beat
(a sentence less its period).
In a phrase `{a|b}` picks one alternative, which may hold further braces, and `{name}` is a slot: hero, friend, rival,
town, city, country, year, and he, him, his, himself, man, child, sibling for whoever the phrase is about.

Words recur across genres on purpose (a killer, a battle, an old house, a small town), so that few give one away.
"""

from __future__ import annotations

KINDS = "RMSGEB"

NEUTRAL = "neutral"  # no genre of the vocabulary: phrases that any film could have

_TEXTS: dict[str, str] = {
    NEUTRAL: """
R a {young|middle-aged|quiet|stubborn|restless} {man} {from {town}|with few friends|on the move}
R a {teacher|driver|clerk|nurse|carpenter|baker|student|translator} {from {town}|in {his} {thirties|forties|fifties}}
R a {newcomer|stranger|drifter} with {nowhere else to go|a past nobody knows|one suitcase}
R the {eldest|only|restless|unlucky} {child} of {two immigrants|a {fisherman|postman|seamstress|mechanic}}
R {somebody|someone} who {never planned to stay|has always kept to {himself}|trusts no one}
S in {town}
S in {city}
S in {the summer|the winter|the spring|the autumn} of {year}
S over the course of {one night|a weekend|a single week|three days|one long summer}
S {far from home|on the road|at the edge of the city|in a part of {city} few visitors see}
S in {a small town|a quiet suburb|a remote village|a crowded apartment block}
G find {a way out|the truth|{his} own way|a reason to stay}
G make {the hardest choice of {his} life|a decision that cannot be undone|one last attempt}
G {leave|return to} {town} {for good|at last|before it is too late}
G keep {a promise|a secret|{his} word} at {any|great} cost
G start {over|again} {somewhere new|under another name|with nothing}
G {choose|decide} between {two very different lives|what is right and what is easy|duty and freedom}
G win back {{his} good name|what was taken|the trust of {friend}}
E an {unexpected visitor|old acquaintance|unsigned letter} {arrives|turns up}
E {friend} disappears {without a word|one morning|for three days}
E {hero} and {friend} {cross paths again|are thrown together|part ways}
E everything {goes wrong|changes|falls apart} {overnight|in a matter of hours|on the very first day}
E {an accident|a chance meeting|a phone call|a lie} {brings the two of them together|changes everything}
E {friend} asks for {help|a favor|the one thing {hero} cannot give}
E {rival} makes {an offer|a proposal|a demand} that is hard to refuse
E the past {catches up|will not stay buried|returns to {town}}
E time {is running out|begins to run short}
E {hero} and {friend} discover how {much they share|alike they are|little they know of each other}
B Nothing will be the same again
B {Not everyone|Nobody} is {|quite }who they {seem|claim} to be
B What {follows|happens next} is {a journey|a story|a night} {neither of them|no one in {town}} will forget
B {But|Yet} {he} has {little|not much} time left
B {Slowly|Little by little}, {the two|they} learn to {trust|understand} one another
B In the end {each of them|everyone} must decide what really matters
B It all {begins|starts} with {a mistake|a telephone call|a small lie|a wrong turn}
B {Based on|Loosely based on|Adapted from} {the {novel|play|short story|memoir} by {friend} {rival}|a {true \
story|popular novel}}
B {Along the way|In the process}, {he} {meets|loses|discovers} {more than {he} expected|a few good people|something \
{he} did not know {he} was missing}
B {Written and directed|Directed} by {friend} {rival}, the film was shot {in {city}|on location|in only \
{twelve|twenty|thirty} days}
B {friend}, meanwhile, has {other plans|problems enough|a secret to keep}
B Both of them have {something|a great deal|everything} to lose
B The {days|hours|weeks} that follow will {test|change} them both
M {two|three} {old friends|strangers|cousins|colleagues} {from {town}|who have not spoken in years}
R a {gifted|promising|well-meaning} {cook|engineer|student|gardener|librarian} {with big plans|from {town}|down on \
{his} luck}
M a {young|retired} {couple|pair of neighbors} {from {city}|new to {town}}
R {a loner|a dreamer|an outsider} {in a town that has forgotten {him}|who never fitted in}
S {in|not far from} {town}, {country}
S on {a cold Monday morning|the longest day of the year|{his} birthday|the last day of summer}
S {by the harbor|near the border|along the coast|high in the hills|beside the old railway}
S {ten|fifteen|twenty} years later
S between {city} and {town}
G get to {city} {by Friday|before winter|without being noticed|with no money}
G find out {why {friend} left|what became of {friend}|who sent the letter|where {he} really comes from}
G settle {an old debt|a score|an old quarrel with {rival}}
G talk {friend} {into staying|into coming along|out of a bad idea}
G {build|open|sell} {a house|a shop|a boat} {by the sea|with {friend}|in {town}}
G {look after|travel with|hide} {friend} {for a few days|until the spring|from {rival}}
G prove {rival} wrong
G {forget|explain|remember} what {happened|{he} saw} in {town}
G learn to {rely on {friend}|stand up for {himself}|live with the truth}
E {rival} {comes back|moves in next door|takes over|wants {him} gone}
E {friend} {tells a lie|loses everything|gets into trouble|makes a discovery|has other ideas}
E {he} {finds a letter|inherits a house|misses a train|loses the keys|hears a rumor} {in {town}|that was meant for \
{friend}|by accident}
E the {weather|luck|mood in town} {turns|begins to change}
E the {money|food|patience of {friend}} runs out
E {no one|nobody} {believes {him}|will listen|wants to know}
E {hero} {is offered|takes} a job {in {city}|with {rival}|nobody else wants}
E the {authorities|neighbors|locals} {start to ask questions|want answers|look the other way}
B {Only {friend}|Nobody but {friend}} {knows the reason|believes {him}|stands by {him}}
B {The plan|The idea|The arrangement} is simple, {but nothing goes as expected|or so it seems}
B {It is|This will be} {the beginning of a long {journey|friendship}|a test for all of them|a long way home}
B {Years|Months} {later|have passed}, and {the question remains|{friend} has not forgotten|{rival} is still waiting}
B {Starring|With} {friend} {rival} {in the title role|in an early part|and a large ensemble cast}
B {He} soon {understands|finds} that {there is no easy way out|some things cannot be bought|{friend} was right}
B {Some|A few} {secrets|promises|doors} are better left {alone|unopened|as they are}
B {In {town}|Here|In this place}, {everybody knows everybody|nothing stays hidden for long|strangers are noticed}
B {rival}, for one, {will stop at nothing|has the most to gain|is not ready to give up}
""",
    "Drama": """
R a {grieving|recovering|estranged} {father|mother|widower|widow|alcoholic}
R a {struggling|proud|single|young} {mother|father|farmer|factory worker|painter}
R {an aging|a once-celebrated|a failing} {actor|writer|professor|surgeon|boxer}
R a {troubled|gifted|lonely} {teenager|adolescent|boy|girl} from a {broken home|poor neighborhood|strict household}
R {a social worker|a young priest|a nurse in a hospice|a schoolteacher} {losing {his} faith|burdened by guilt}
R an {immigrant|unemployed} {laborer|dockworker|cleaner} raising {two|three} children alone
R the {eldest|youngest|adopted} {child} of a {divided|wealthy|working-class} family
S after the {death|disappearance|sudden illness} of {his} {father|mother|wife|husband|{child}}
S in a {dying|declining} {mill|mining|fishing|factory} town
S in the {shadow|aftermath} of {a painful divorce|a family tragedy|an accident that killed {his} {sibling}}
S on the {margins|outskirts} of {city}, where {work is scarce|hope is in short supply}
S during the last months of {his} {mother|father}'s life
S behind the closed doors of a {respectable|middle-class|deeply religious} {home|marriage|family}
G come to terms with {grief|{his} guilt|loss|{his} own mortality|the past}
G {rebuild|mend} {his} {shattered|broken} relationship with {his} {estranged |dying |teenage \
}{son|daughter|father|mother|sister|brother}
G care for {his} {ailing|dying|disabled} {mother|father|wife|husband|{sibling}}
G {overcome|face} {addiction|depression|poverty|prejudice|{his} own demons}
G {hold|keep} {the|{his}} {family|marriage} together
G find {meaning|dignity|forgiveness|redemption|a measure of peace}
G win custody of {his} {son|daughter|children}
G escape {a loveless|an abusive} {marriage|household|home}
E {his} {son|daughter|wife|husband} is {diagnosed with a terminal illness|badly hurt in an accident|sent away}
E a long-buried {family secret|betrayal|shame} comes to light
E {he} {loses {his} job|begins to drink again|suffers a breakdown|learns that {he} is dying}
E an unwanted pregnancy {threatens to tear the family apart|divides the household}
E the {death|return} of {his} {father|mother|brother} {reopens old wounds|forces the family to face the truth}
E {his} marriage {begins to fall apart|is crumbling|reaches a breaking point}
E {friend}'s death leaves {the family|the whole school|a community} {in shock|searching for answers}
E a young {teacher|nurse|lawyer|priest} stands up against {injustice|the school board|racism in the town}
E the {factory|mill|mine} closes and {the family loses its home|a whole community is left without work}
B {An intimate|A moving|A tender|A harrowing} {portrait|study} of {loss|a family in crisis|loneliness|love and guilt}
B Old {resentments|wounds} {surface|are reopened}, and {painful|long-avoided} truths have to be {spoken|faced}
B {His} {grief|guilt|shame|loneliness} {slowly consumes {him}|isolates {him} from everyone who cares}
B Through {friend}'s {kindness|friendship}, {he} {learns to forgive|begins to heal|finds the courage to live again}
B {Mother and daughter|Father and son|The two sisters|The brothers} must confront {years of silence|what was never \
said|their shared past}
B {Torn|Caught} between {family and ambition|loyalty and conscience|duty and desire}, {he} {breaks down|makes a \
painful choice}
B The family struggles to {survive|stay together} as {debts mount|illness takes hold|grief closes in}
B It is a story of {ordinary people|three generations|a community} and the {sacrifices|compromises} they make
""",
    "Comedy": """
R a {hapless|bumbling|clueless|lazy} {salesman|waiter|clerk|accountant|substitute teacher}
R {an uptight|a neurotic|a pampered} {banker|lawyer|wedding planner|dentist|heir}
R {a slacker|an overgrown adolescent|a perpetual bachelor} who still lives with {his} {mother|parents|ex}
R a {fast-talking|penniless} {con artist|agent|inventor|used-car dealer}
M {a pair of idiots|a gang of misfits|a group of college buddies} {with a crazy scheme|who can do nothing right}
R {a misfit|an idiot|a prankster} {with a crazy scheme|who can do nothing right}
R a {washed-up|third-rate} {comedian|magician|television host|sitcom star}
S at the {worst|wackiest} {wedding|office party|family reunion|summer camp} of the year
S in a {chaotic|run-down|hopelessly mismanaged} {hotel|restaurant|fraternity house|department store}
S during {spring break|a bachelor party|the most embarrassing week of {his} life}
S in a suburb where {the neighbors are all eccentric|nothing ever goes as planned}
S on a {disastrous|madcap} {road trip|cruise|family vacation}
G pass {himself} off as {a priest|a millionaire|a French chef|an astronaut|a doctor}
G find a date {before graduation|before the prom|by the end of the summer}
G {impress|survive} {his} {overbearing|snobbish|lunatic} {in-laws|boss|mother-in-law}
G get rid of {an annoying|an obnoxious} {roommate|neighbor|houseguest|cousin}
G {throw|crash} the {wildest|biggest} party {in town|the campus has ever seen}
G win a {ridiculous|cooking|bowling|beauty} contest
G talk {his} way out of {one absurd lie after another|a very awkward situation|jail}
G save the {failing|shabby} {diner|hotel|strip mall|bowling alley} from {bankruptcy|a greedy developer}
E a case of mistaken identity {lands {him} in trouble|gets out of hand}
E {his} {nutty|eccentric|meddling} {uncle|aunt|mother|neighbor} moves in
E a {harmless|silly} {prank|lie|bet} {spirals out of control|backfires spectacularly}
E {he} wakes up {with no trousers|next to a goat|married to a stranger|in the wrong hotel}
E two {rival|feuding} {neighbors|chefs|salesmen|families} {declare war on each other|go to absurd lengths to win}
E {he} has to pretend {to be {friend}'s fiancé|to be rich|that {he} is dead}
E the {dog|goat|groom|birthday cake|wedding ring} goes missing {an hour before the party|at the worst moment}
E the boss {falls for the wrong twin|is accidentally locked in the freezer|turns out to be even dumber}
B {Hilarity|Chaos|Mayhem|Madcap chaos} ensues
B {A riotous|A zany|A hilarious|An irreverent|A slapstick} {farce|satire|spoof|romp} about {modern life|office \
politics|suburban manners|friendship and bad decisions}
B {Naturally|Of course}, {everything that can go wrong does|the plan is a disaster|nobody is fooled for long}
B {Misunderstandings|Pratfalls|Complications|Outrageous stunts} pile up until {no one knows who is who|the wedding \
turns into a brawl}
B With {friends|relatives|colleagues} like these, {he} hardly needs enemies
B Unfortunately, {he} is {the least qualified person imaginable|allergic to work|afraid of everything}
B {Armed with|Blessed with} {more enthusiasm than sense|a borrowed suit|one bad idea}, {he} makes {a fool of \
{himself}|everything worse}
""",
    "Thriller": """
R an {ordinary|innocent} {man} {on the run|framed for murder|with a stalker}
R a {former|rogue|burned} {CIA analyst|intelligence officer|secret agent|federal agent}
R an {ambitious|obsessive} {journalist|prosecutor|profiler|psychiatrist}
R {a hostage negotiator|a security consultant|a witness in hiding|a surveillance expert}
R a {wealthy|paranoid} {executive|senator|architect|surgeon} with {a double life|a deadly secret}
S in a {locked|sealed|wired} {building|office tower|bank vault|panic room}
S during {a blackout|a hostage crisis|an election campaign|a hurricane}
S {on a night train|aboard a hijacked plane|on a highway with no exits}
S in a world of {blackmail|surveillance|corporate espionage} where {no one can be trusted|everyone is being watched}
G {expose|uncover} a {conspiracy|cover-up} that {reaches|goes} {to the highest levels of government|all the way to \
the top}
G {clear {his} name|prove {his} innocence} before the {killers|police|assassins} {find|catch} {him}
G stop {an assassination|a bombing|a terrorist attack} {within twenty-four hours|before midnight}
G {escape|outwit} a {sadistic|psychotic|relentless} {kidnapper|stalker|killer|captor}
G protect {his} {family|wife|{child}} from {a dangerous intruder|a ruthless blackmailer|a hired killer}
G {find|rescue} {his} {kidnapped|missing|abducted} {daughter|wife|son|husband}
E {he} becomes the {target|prime suspect|pawn} in a deadly {game|plot|conspiracy}
E {his} {daughter|wife|husband|son} is kidnapped and the {ransom|deadline} {keeps changing|is set for midnight}
E a {stranger|psychopath|caller} begins a {deadly|sinister} game of cat and mouse
E {he} witnesses {a murder|an execution|something {he} was never meant to see}
E {a flash drive|a briefcase|a stolen file} full of {classified|incriminating} {documents|secrets} falls into {his} \
hands
E someone {is watching {his} every move|has been in the house|starts sending photographs}
E {his} new {neighbor|wife|tenant|babysitter} turns out to be {dangerously obsessed|a killer|someone else entirely}
B The {hunter|pursuer} becomes the {hunted|prey}
B {Paranoia|Suspicion|Obsession} {mounts|grows} as the {bodies|threats|lies} pile up
B {Trapped|Cornered} and {betrayed|hunted}, {he} has {only hours|until dawn} to {stay alive|uncover the plot|outsmart \
{his} enemies}
B {Every|Each} {clue|call|step} draws {him} deeper into a {web|maze} of {deceit|lies|treachery}
B What looks like {an accident|a simple job} is {a trap|cold-blooded murder|part of a far more sinister plan}
B A {taut|tense|nail-biting} game of {nerves|deception|survival} {unfolds|follows}
""",
    "Action": """
R a {retired|disgraced|lethal} {commando|special forces operative|mercenary|stunt driver|hitman}
R a {maverick|hot-headed|tough} {cop|bodyguard|pilot|marine}
R a {martial arts|kung fu|kickboxing} {champion|master|student}
R an {elite|outgunned} {squad leader|sniper|bomb-disposal expert|strike-team captain}
R a {street fighter|bounty hunter|getaway driver|lone warrior} {with nothing left to lose|out for revenge}
S in the {ruthless|brutal} world of {underground fighting|arms smuggling|street racing}
S in a skyscraper seized by {terrorists|mercenaries|heavily armed robbers}
S across {three continents|the rooftops of {city}|a jungle crawling with guerrillas}
S on a {speeding|runaway} {train|bus|convoy}
G take down {a drug lord|an arms dealer|a crime syndicate|a private army} {single-handedly|with {his} bare hands}
G {rescue|extract} {hostages|a captured scientist|the president's daughter} from {a terrorist compound|behind enemy \
lines}
G avenge the {murder|slaughter} of {his} {family|partner|master|brother}
G {fight|shoot|blast} {his} way {out of the city|through an army of henchmen|to the top floor}
G {disarm|recover} a {stolen|nuclear|hijacked} {warhead|bomb|missile}
G win a {deadly|brutal} {martial arts|fighting} tournament
E {terrorists|mercenaries|gunmen} {seize|storm} the {embassy|airport|tower|ship}
E {his} partner is {gunned down|killed in an ambush|left for dead}
E {he} is {double-crossed|betrayed by {his} own unit|ambushed} on a {mission|raid}
E a {high-speed|explosive} {chase|shootout} {tears through the streets|leaves the city in flames}
E a ruthless {warlord|assassin|kingpin|general} puts a price on {his} head
E {he} is dragged out of retirement for {one last|a suicide} mission
B {Bullets fly|Cars explode|Fists fly} as the two {warriors|rivals|teams} {clash|go head to head}
B {Outnumbered|Outgunned|Hunted by an army of assassins}, {he} {fights back|strikes back|wages a one-{man} war}
B With {explosives|a stolen helicopter|guns blazing|lethal skills}, {he} {takes on the whole gang|goes after the men \
responsible}
B It will take {all {his} combat training|every weapon {he} has} to {stop|bring down} {rival} and {his} {private \
army|henchmen}
B A {non-stop|relentless} {chase|battle} {leads|races} from {city} to {the desert|the mountains|the final showdown}
""",
    "Romance": """
R a {hopeless romantic|shy bookseller|lovelorn florist|jilted bride}
R a {charming|handsome|dashing} {playboy|doctor|sailor|heir|captain}
R a {beautiful|headstrong|free-spirited} {heiress|dancer|widow|waitress|countess}
R a {divorced|cynical|heartbroken} {columnist|architect|wedding singer|single parent} who has given up on love
R {a young bride|a newlywed|a runaway bride} {with second thoughts|in love with another}
S on {the eve of {his} wedding|a moonlit cruise|Valentine's Day|a honeymoon for one}
S {during one summer by the sea|in a seaside village|in a vineyard}, where {two lonely hearts meet|first love blooms}
S in a romantic {city of lovers|corner of Paris|villa in Tuscany}
G win {the heart|the hand|the love} of {friend}
G {confess|declare} {his} {love|feelings} before {the wedding|{friend} marries another}
G {choose|decide} between {two suitors|{his} fiancé and {his} first love|passion and security}
G find {true love|{his} soulmate|the perfect husband|the perfect match}
G {rekindle|forget} an {old|impossible} {flame|love affair}
E {hero} and {friend} fall {head over heels|deeply|hopelessly|unexpectedly} in love
E {he} falls for {a married {man}|{his} best friend's fiancée|the one person {he} cannot have}
E a passionate {affair|romance} {begins|blossoms|complicates matters}
E {his} {first love|former lover|old flame} {returns|comes back to town|announces an engagement}
E the {families|parents} of both forbid {the match|the marriage|them to meet}
E a {marriage of convenience|one-night stand|holiday fling} turns into {something more|real love}
B {Sparks fly|Love blossoms|Attraction grows} {between them|in spite of everything|against all expectations}
B Can {love|their romance|two such different hearts} {survive|last|overcome} {distance|pride|class and family|the \
truth}?
B {Separated|Divided} by {class|fate|an ocean|war}, the {lovers|couple} {write to each other|long to be \
together|never forget}
B {He} must {follow {his} heart|risk heartbreak|learn to love again}
B A {bittersweet|tender|passionate} love story about {second chances|first love|two people who meet too late}
""",
    "Horror": """
R a {young|terrified} {babysitter|camp counselor|medium|exorcist}
M a group of {teenagers|college students|campers|ghost hunters|backpackers}
R a {deranged|mad} {scientist|surgeon|caretaker|preacher} obsessed with {the dead|resurrection|blood}
R a {possessed|haunted|pale} {girl|child|nun|priest} {from {town}|who hears voices}
R {a masked slasher|an ancient vampire|a werewolf|an undead killer} {stalking|who preys on} {the living|a quiet \
town|teenagers}
S in a {haunted|cursed|rotting} {house|mansion|asylum|orphanage|hotel}
S at {a cabin deep in the woods|an abandoned asylum|a lonely summer camp|an old cemetery}
S on {Halloween night|the anniversary of a massacre|a night of the full moon}
S in a {fog-bound|isolated} village with {a gruesome secret|a history of witchcraft}
G survive {the night|a night of terror|the massacre|the undead}
G {break|lift} {a deadly|an ancient|a witch's} curse
G {exorcise|destroy} the {demon|evil spirit|vampire|creature} that {has possessed {his} daughter|feeds on the town}
G {flee|escape} a family of {cannibals|bloodthirsty maniacs|Satanists}
G {spend|get through} a night in {the haunted house|the morgue|the crypt}
E {zombies|the dead|flesh-eating creatures|vampires} {rise from their graves|overrun the town|begin to feed}
E a {masked|supernatural|bloodthirsty} {killer|presence|maniac} {picks them off one by one|begins to slaughter the \
guests}
E {strange noises|terrifying visions|ghostly figures} {haunt the house|drive the family to madness}
E {an evil|a demonic|a malevolent} {spirit|force|entity} is {unleashed|awakened} by {a ritual|a séance|an old book}
E {he} is bitten and {begins to change|craves human blood|turns into a monster}
E the {mutilated|bloodless} bodies of {teenagers|tourists|villagers} are found {in the woods|in the cellar}
B {Blood|Terror|Evil} {flows|reigns|awaits} {in the dark|until dawn|in the cellar}
B One by one they {die in gruesome ways|are butchered|are taken by the creature}
B {Something|An ancient evil|A hideous creature} {lurks|waits|is hiding} {beneath the house|in the woods|behind the \
mirror}, and it is {hungry|not human}
B Soon the {screams|nightmares|killings} begin, and {no one will leave alive|the nightmare becomes real}
B {The house|The doll|The curse} {has claimed its next victim|wants blood|will not let them go}
""",
    "Crime": """
R a {veteran|corrupt|burned-out|hard-boiled} {homicide detective|police inspector|vice cop}
R a {small-time|aging|ruthless} {crook|gangster|mobster|drug dealer|thief}
R {an ex-convict|a parolee|a bank robber|a safecracker} {fresh out of prison|trying to go straight}
R a {mafia|mob|cartel} {accountant|boss|enforcer|informant}
R an undercover {cop|narcotics agent|officer} {posing as a dealer|inside the mob}
S in {the criminal underworld of {city}|a city run by gangsters|the narcotics trade}
S in {a maximum-security prison|a courthouse under siege|a corrupt precinct}
S among {loan sharks and bookmakers|fences and pushers|drug gangs}
G pull off {one last|the perfect|a daring} {heist|robbery|bank job|jewel theft}
G {infiltrate|bring down} {the mob|a drug cartel|a counterfeiting ring|a street gang}
G {launder|steal|recover} {two million dollars|the gang's money|a shipment of cocaine}
G {rise|climb} through the ranks of {the mafia|a crime family|the local gang}
G pay off {his} {gambling|drug} debts to {a loan shark|the mob}
G catch a {serial killer|cop killer|robber} who {taunts the police|leaves no evidence}
E a {robbery|drug deal|heist|burglary} goes {wrong|horribly wrong}
E the {mob|gang|crime family|cartel} {wants its money back|orders {his} murder|takes over the neighborhood}
E a {gang|turf} war {erupts|breaks out} between {two crime families|dealers and police}
E {he} is {arrested|sentenced to prison|charged with murder} for {a crime {he} did not commit|armed robbery}
E a {bookmaker|police informant|judge|mob lawyer} is found {murdered|shot dead}
E the {detective|police|district attorney} {closes in|offers {him} a deal}
B {Greed|Betrayal|Suspicion} {turns the thieves against each other|divides the gang}
B {Cops and criminals|Police and mobsters} alike are {after the loot|looking for {him}|on the take}
B The {case|investigation|evidence} leads to {corruption inside the department|the city's most powerful gangster}
B {Prison|The underworld|The mob} {has its own rules|never forgets|does not forgive}
""",
    "Adventure": """
R a {daring|fearless|legendary} {explorer|treasure hunter|sea captain|smuggler|adventurer}
R {an archaeologist|a map-maker|a mountaineer|a young cabin boy|a naturalist} {in search of a lost city|with an \
ancient map}
R a {shipwrecked|swashbuckling} {sailor|pirate|swordsman|nobleman}
M a band of {explorers|castaways|pirates|treasure seekers}
S in the {uncharted|steaming} jungles of the {Amazon|Congo}
S on {a desert island|the high seas|a lost continent|a frozen mountain pass}
S on an expedition to {the North Pole|the source of a great river|a forgotten temple|the heart of Africa}
G find {a legendary|a lost|a buried|the fabled} {treasure|city|temple|diamond}
G {cross|survive} {the desert|the Himalayas|the wilderness|shark-infested waters}
G {sail|journey|travel} {around the world|to the end of the earth|across the ocean}
G {rescue|free} {friend} from {pirates|a prison island|a tyrannical governor}
G lead {an expedition|the survivors} {to safety|through the jungle|home}
E {a storm|a shipwreck|a plane crash} strands {the crew|them} on {an uncharted island|a glacier}
E {an ancient map|a stone idol|a golden key} reveals {the location of a treasure|a lost civilization}
E rival {treasure hunters|explorers|pirates} {race them to the prize|steal the map}
E the {expedition|voyage|crew} {is attacked|runs into danger} {by wild animals|by pirates|in the rapids}
B {Perilous|Great} {journeys|dangers} and {narrow escapes|hidden traps|wild beasts} {await|lie ahead}
B {The quest|The expedition|The voyage} {takes|leads} them {across deserts and mountains|through ancient ruins|into \
unknown lands}
B Together they {brave|face} {storms|raging rivers|avalanches|quicksand} {on the way to the treasure|in an epic \
journey}
R {a bush pilot|an orphaned jungle boy|a desert guide|an heir to a lost fortune}
S {deep in the|in the remote} {jungle|desert|Arctic|canyon}
E {smugglers|the guardians of the temple|desert nomads} {capture the explorers|guard the way|offer to guide them}
B {Sandstorms|Crocodiles|Traps|Rival crews} {stand between them and the treasure|slow the expedition}
""",
    "Science Fiction": """
R {an astronaut|a starship captain|a space miner|a cosmonaut|a colony doctor}
R a {brilliant|reclusive} {physicist|roboticist|geneticist|inventor} who {builds a time machine|clones \
{himself}|opens a portal}
R {an android|a cyborg|a robot|a clone} {that begins to feel|who escapes from the laboratory|built for war}
R a {rebel|hacker|survivor} in {a totalitarian future|a virtual world|a ruined future}
S {aboard a space station|on a distant planet|on a mining colony|on a ship} {orbiting Mars|at the edge of the \
galaxy|light years from Earth}
S in the year {2045|2077|2150|2199|2413}
S in a {post-apocalyptic|dystopian|high-tech} {wasteland|city|future} {ruled by machines|after a nuclear war|ravaged \
by a virus}
S inside {a secret laboratory|a military research base|a computer simulation}
G save {Earth|mankind|the human race|the planet} from {extinction|an asteroid|an alien invasion}
G {travel|go} {back in time|into the future} to {change history|prevent a catastrophe}
G {make|establish} {first contact|peace} with an {alien|extraterrestrial} {race|intelligence}
G {shut down|outthink} {a rogue computer|an artificial intelligence|an army of robots}
G find a new {planet|home} for {the last humans|mankind}
E {aliens|extraterrestrials|giant machines} {invade|land on Earth|attack the colony}
E {a scientific experiment|a genetic experiment|a time machine} goes {wrong|out of control}
E a {mysterious|strange} {signal|object|meteorite} {from outer space is detected|crashes to Earth|approaches the \
planet}
E a {deadly|mutant|alien} {virus|organism|parasite} {escapes from the laboratory|infects the crew}
E the {ship|space station|colony} loses {contact with Earth|power|oxygen}
B The {experiment|technology|machine} {has consequences for all mankind|cannot be stopped}
B {Humanity|Mankind|The crew} {faces extinction|is no longer alone in the universe}
B {Scientists|The government|The corporation} will do {anything|everything} to {capture the alien|control the \
technology}
""",
    "Family": """
R {a ten-year-old|a mischievous|a lonely little} {boy|girl|orphan}
R a {spoiled|clever|shy} {schoolboy|schoolgirl|kid} with {a new dog|a pony|a strict grandfather|an imaginary friend}
R a {lovable|stray|runaway} {dog|puppy|horse|seal|pig}
M {two kids|three siblings|a pair of twins} {with big hearts|who believe in Santa Claus}
S at {Christmas|a summer camp for kids|grandpa's farm|a new school}
S over {the Christmas holidays|the school holidays|summer vacation}
S on a {farm|ranch|boat} full of {animals|children|puppies}
G {find|bring home} {a lost puppy|{his} runaway dog|{his} parents|a baby seal}
G save {Christmas|the school|the family farm|the orphanage|the zoo}
G win the {big game|soap-box race|dog show|spelling bee} with {his} {team|little brother|classmates}
G {make|find} {new friends|a real friend} {at school|in the neighborhood}
G {befriend|protect|train} {a wild horse|a stray dog|a talking parrot|a baby bear}
E a {boy|little girl|child} {befriends|adopts} {a stray dog|an injured fox|an orphaned elephant|a friendly monster}
E the {kids|children} {are left home alone|discover a secret door|set a trap for the burglars}
E {dad|mom|grandpa} {loses {his} job at Christmas|becomes the team's new coach|forgets the children}
E the {animals|children|toys} {run away from home|team up against the wicked owner}
B {Kids and parents|The whole family|Children} will {learn|discover} the {meaning of friendship|magic of \
Christmas|value of believing in yourself}
B A heartwarming {tale|adventure} {for all ages|for the whole family} about {a boy and his dog|friendship|growing up}
B With the help of {his} {furry friend|classmates|grandmother}, the {boy|girl|little hero} {outsmarts the \
bullies|saves the day}
R {the new kid at school|a boy scout|a foster child|a clumsy babysitter} {with a pet|who loves animals}
S {at the zoo|in a tree house|at grandma's house|in the school gym}
G teach {his} {puppy|little sister|class} {to swim|a lesson about sharing|to believe in magic}
E {a magical nanny|a circus elephant|Santa's youngest elf|a tiny puppy} {arrives at the house|changes everything for \
the kids}
""",
    "Fantasy": """
R {a young wizard|a sorcerer's apprentice|a fallen angel|an exiled prince|an orphaned princess}
R {a fairy|a dragon slayer|an elf|a genie|a mermaid} {bound by a spell|banished from the kingdom|in the world of \
mortals}
R {a chosen child|a humble stable boy|a reluctant knight} {destined to be king|with magical powers}
S in {a magical|an enchanted|a mythical} {kingdom|forest|realm|land} of {dragons|fairies|witches and wizards}
S in {a land where magic is forbidden|a parallel world|the realm of the gods}
S behind {a magic mirror|an enchanted door|a wardrobe}, in a world of {wonders|spirits|talking beasts}
G {defeat|overthrow} {an evil|a dark} {sorcerer|queen|wizard|lord}
G {recover|destroy} {a magic sword|an enchanted ring|the crystal of light|a spell book}
G {break|undo} {the spell|an enchantment|the witch's curse}
G {fulfil|escape} {an ancient prophecy|{his} magical destiny}
G save the {kingdom|realm|fairy folk} from {darkness|an army of goblins|eternal winter}
E {a wish|a magic spell|a fairy's gift} {comes true|transforms {him}|swaps their bodies}
E {an evil queen|a dark sorcerer|a witch|a dragon} {seizes the throne|enslaves the kingdom|casts a spell on the \
village}
E {he} discovers {a portal to another world|{his} magical powers|that fairy tales are real}
E the {gods|spirits|dragons} {awaken|return|wage war on mortals}
B {Magic|Prophecy|An ancient spell} {binds them together|awakens|holds the answer}
B {Wizards|Elves|Witches|Dragons} and {mortals|trolls|giants} {battle for the kingdom|must unite against the dark lord}
B {He} has until {the last petal falls|the next full moon|the stroke of midnight} to {break the spell|become human \
again}
R {a banshee|a young witch|the guardian of a sacred grove|a cursed king} {in search of a unicorn|who can speak to \
spirits}
S in {a kingdom under a spell|the underworld|a world of floating islands}
G {tame|awaken} {the last dragon|a sleeping giant|the spirit of the forest}
""",
    "Mystery": """
R {a private detective|a retired inspector|an amateur sleuth|an insurance investigator}
R {a crime novelist|a small-town sheriff|a reporter|an amnesiac} {haunted by an unsolved case|who wakes with no memory}
R {a guest|the new governess|the heir|a medium} {at a country manor|on a private island|at a séance}
S at {a country estate|a secluded manor|a remote boarding school} where {the host is found dead|a guest has vanished}
S {twenty|thirty|ten} years after {a girl vanished|an unsolved murder|a mysterious drowning}
S in a {seaside|snowbound} {hotel|village} where {everyone is a suspect|everybody hides something}
G solve {a puzzling|a baffling|the} {murder|disappearance|riddle|case}
G {discover|find out} {who killed|what happened to} {{friend}|{his} {sibling}|the missing girl|the old colonel}
G {decipher|follow} {the clues|a cryptic message|a trail of strange symbols}
G {recover|piece together} {his} lost memory
E a {body|skeleton|corpse} is {discovered|found} {in the library|in the lake|behind a wall}
E {a young woman|the host|a student|the heiress} {vanishes without a trace|is found dead under mysterious \
circumstances}
E the {clues|witnesses|alibis} {do not add up|point to the least likely suspect}
E an {old|unsolved} {case|murder} is {reopened|connected to a new death}
B Everyone {in the house|on the guest list|in the village} is a {suspect|liar with a motive}
B {Puzzling|Strange|Cryptic} {clues|messages} {point to a long-forgotten crime|deepen the riddle}
B Who is the {murderer|stranger|woman in the photograph}, and {why|what} {did they hide the body|does the old diary \
conceal}?
B The {solution|answer|truth} to the {riddle|puzzle|mystery} lies {in the past|in an old photograph|closer than \
anyone suspects}
R {a blind pianist|an archivist|a coroner|a young widow} {drawn into an old case|who receives anonymous letters}
G unmask {the strangler|the writer of the anonymous letters|an impostor}
E {an anonymous letter|a hidden diary|a missing painting} {hints at an old crime|casts doubt on the confession}
S {after|during} {a masked ball|an inquest|the reading of a will}
""",
    "Documentary": """
R {a filmmaker|a photographer|an activist|an athlete|a chef|an architect} {at work|and {his} legacy|in {his} own words}
M a {community|generation|family} of {farmers|migrants|activists|surfers|artists|climbers}
R {a pioneering|a controversial|an influential} {artist|scientist|politician|designer|athlete|journalist}
S {through|with} {rare archival footage|candid interviews|never-before-seen home movies}
S behind the scenes of {the fashion industry|professional sport|a presidential campaign|the food industry}
S over {five|ten|three} years of {filming|unprecedented access|interviews}
G {document|tell the story of|raise awareness of} {climate change|the housing crisis|a vanishing way of life|a \
forgotten scandal}
G {examine|investigate|explore} {the impact of|the truth about|the history of} {fast food|globalization|nuclear \
power|the internet|television}
G {capture|show} {everyday life|nature|wildlife} {as never seen before|on camera|in the Arctic}
E {experts|activists|survivors|former employees} {speak openly|share their stories|tell their side}
E {the filmmakers|two reporters} {gain unprecedented access|follow {friend} for a year}
E {archival footage|interviews with colleagues|home movies} {reveal|shed light on} {a complex figure|the real story|a \
changing society}
B {This documentary|The film|The filmmaker} {explores|examines|looks at|chronicles} {the rise and fall of a \
company|the life and work of {friend} {rival}|the effects of globalization|a subculture}
B {Featuring|Combining} interviews with {friends and family|experts and activists|fans|scientists} and {archival \
footage|newly restored film}, it {paints a vivid portrait of {city}|asks who was to blame|has no need of a narrator}
B Interviews {and archive material|with those who were there} {tell|reveal} the {real|untold|true} story
B {Narrated by|Hosted by|Presented by} {friend} {rival}, {it|the documentary} {raises questions about|offers a rare \
look at} {our society|the natural world|modern medicine|the environment}
B {A revealing|An eye-opening|A feature-length} {documentary about|look at|study of} {life on the road|the people who \
built {city}|an unlikely champion|the politics of water}
""",
    "Animation": """
R {a brave little|a clumsy|a curious} {mouse|penguin|robot|dinosaur|rabbit|bear cub}
R {a talking|a cowardly|a vain} {cat|toy|teapot|squirrel|car|duck}
R {a young ninja|a pilot of a giant robot|a magical girl|a boy made of wood}
S in {a world|a city|a forest} {of talking animals|populated by toys|where insects live like people}
S {in the animal kingdom|in a toy store after dark|at the bottom of the sea|in a colony of ants}
S in {this|an} animated {tale|fable|version of the classic fairy tale|short}
G {become|prove that {he} can be} {a real hero|the fastest snail|a real boy|a great chef}
G rescue {his} {animal friends|fellow toys|herd|nest} from {the circus|hungry wolves|an evil cat|a toy collector}
G {find|return to} {his} {herd|pack|colony|owner}
E {the animals|the toys|the penguins|the ants} {come to life|band together|escape from the zoo}
E a {mischievous|gluttonous|lovable} {cat|bear|raccoon|dragon} {gets into trouble|joins the gang}
E the {mecha|ninja|pilot} {must fight in the skies over Tokyo|awakens a hidden power}
B {Featuring|Brought to life with} {hand-drawn|computer|stop-motion|clay} animation, {it is a delight|the tale is \
told without words}
B The {critters|little heroes|cartoon friends} {set off|sing and dance|stumble} {across the forest|through one scrape \
after another}
B {Cats|Mice|Toys|Bugs} and {dogs|owls|robots|frogs} {learn to get along|go on a colorful journey}
R {a tiny|a grumpy|a brave} {hedgehog|ant|owl|fox|snowman|dragon}
S in {a pond|a jungle|a barnyard|the sewers} full of {singing frogs|wisecracking rats|chatty hens}
G save the {forest|reef|barnyard|toy shop} from {greedy humans|a mean crow|the bulldozers}
E {a witch's cat|a flying elephant|a lost egg|a little cloud} {falls from the sky|learns to talk|sings for the first \
time}
B The {anime|cartoon|animated feature} {brings back|stars} {the popular manga characters|the beloved rabbit|a \
wisecracking sidekick}
""",
    "Music": """
R {a singer|a jazz pianist|a struggling songwriter|a guitarist|a rapper} {dreaming of stardom|on the verge of \
fame|past {his} prime}
M {a garage band|a girl group|an orchestra|a dance troupe|a choir} {on tour|from {town}|looking for a hit}
R {a ballet dancer|a violin prodigy|a rock star|a chorus girl|a DJ}
S {on tour|on stage|in concert|backstage} {at a legendary club|with a rock band|at a sold-out arena}
S in the {jazz clubs|dance halls|recording studios|nightclubs} of {city}
S during {a music festival|the heyday of punk rock|the disco era|auditions for a musical}
G {win|enter} {a talent contest|the battle of the bands|a dance competition|a singing contest}
G {record|cut|write} {a hit song|{his} first album|a symphony}
G make it {on Broadway|as a singer|in the music business}
G {reunite|save} {the band|the choir|the orchestra}
E the band {breaks up|signs a record deal|goes on tour|hits the charts}
E {a record producer|a talent scout|a famous conductor} hears {him} {sing|play}
E the show {must go on without its star|opens on Broadway|closes out of town}
B {Featuring|Packed with} {live performances|songs|musical numbers|concert footage} {by|from} {the band|{friend} \
{rival}|the original cast}
B {Fame|Stardom|Life on the road} {takes its toll on the band|comes at a price}
B {Music|Rock and roll|Dancing|The stage} is {his} {whole life|only escape|one true passion}
R {an opera diva|a country singer|a piano teacher|a teenage drummer} {with stage fright|chasing a record deal}
S in {Nashville|Harlem|Vienna's concert halls|the rap scene of the Bronx}
G {play|sing|conduct} {one last concert|the lead in the opera|before a crowd of thousands}
E {his} song {becomes a hit|is stolen by a rival band|wins over the crowd}
B The {album|concert|tour|musical} {made rock history|brings the house down|ends in discord}
""",
    "History": """
R {the young queen|the emperor|the last tsar|a king's adviser|a cardinal} {surrounded by intrigue|on a fragile throne}
R {a revolutionary|a reformer|a statesman|a suffragette|an abolitionist} {who changed the course of a nation|ahead of \
{his} time}
R {a Roman general|a samurai lord|a Viking chieftain|a medieval monk|a court painter}
S in {fifteenth|sixteenth|seventeenth|eighteenth|nineteenth}-century {England|France|Spain|Russia|Japan|Italy}
S {at the court of|during the reign of} {the king|Catherine|the emperor|the young tsar|the Medici}
S on the eve of {the French Revolution|the fall of the empire|independence|the civil rights movement}
G {unite|rule|liberate} {the kingdom|a divided nation|the colonies|{his} people}
G {abolish slavery|end the monarchy|draft a constitution|win independence}
G {claim|defend} the {throne|crown} against {{his} own brother|the church|rival dynasties}
E {the king|the emperor|the president|the archbishop} is {assassinated|overthrown|put on trial}
E {a revolution|a rebellion|an uprising} {sweeps the country|breaks out|threatens the crown}
E a {peasant|slave|workers'} revolt {is crushed|shakes the empire|spreads across the land}
B {Based on|Inspired by} {historical|real} events, the film {recounts|chronicles|depicts} {the reign of a king|the \
birth of a nation|the trial of a statesman}
B {Treaties|Alliances|Dynasties} {are broken|rise and fall} as the {empire|monarchy|republic} {crumbles|is born}
B {He} would {become one of the most important figures of the century|change the course of history|die on the scaffold}
R {an exiled duke|the king's mistress|a conquistador|a philosopher} {accused of treason|with enemies at court}
S in {ancient Rome|feudal Japan|Victorian England|Renaissance Florence|colonial India}
G {conquer|convert|reform} {a new world|the empire|the church}
G {seize|regain} power {from a corrupt parliament|after years in exile}
E {the queen|the duke|the general} {signs a treaty|marries for the sake of an alliance|declares the republic}
B An epic {biography|chronicle} of {the man who united a nation|a queen and her century|the last days of an empire}
""",
    "War": """
R {a young soldier|an army medic|a platoon sergeant|a tank commander|a fighter pilot}
R {a resistance fighter|a deserter|a prisoner of war|a war correspondent|a submarine captain}
M {a battalion|a platoon|a squad} of {raw recruits|marines|paratroopers|infantrymen}
S during {World War II|the First World War|the Vietnam War|the Korean War|the Civil War}
S in {Nazi-occupied|war-torn} {France|Poland|Norway|Europe|Greece|Holland}
S {on the front line|in the trenches|behind enemy lines|in a prisoner-of-war camp|on the eastern front}
G {hold|capture|blow up} {a strategic bridge|the hill|an enemy fortress|the ridge}
G lead {his} {men|platoon|company|squadron} {into battle|through enemy territory|to safety}
G {survive|escape from} {the siege|a prison camp|the bombing|combat}
E the {Germans|Nazis|enemy|Japanese army} {invade|attack the village|advance|surround the platoon}
E {his} {regiment|squadron|unit|company} is {sent to the front|cut off|wiped out}
E {war|the war|civil war} {breaks out|reaches the village|tears the country apart}
B The {soldiers|troops|men of the platoon} {face the horrors of war|fight for every yard|wait for the assault}
B {Under fire|In the mud and blood of the battlefield}, {comradeship|courage|brotherhood} {is all they have|is put to \
the test}
B {Thousands|Many of the men} will {not come home from the front|die in the battle}
R {a general|a nurse at a field hospital|a bomber pilot|a partisan} {in the last days of the war|who refuses to \
surrender}
S {during the invasion of Normandy|in the winter of 1943|at the height of the Blitz|in the Pacific}
G {sink|sabotage} {a German battleship|an ammunition train|the enemy's radar station}
G deliver {a message|the codes|supplies} to {the trapped battalion|Allied headquarters}
E {paratroopers|Allied troops|tanks} {land behind enemy lines|approach the town}
B The {mission|campaign|siege} {costs many lives|will decide the war}
""",
    "Western": """
R {a gunslinger|a bounty hunter|a drifting cowboy|an outlaw|a retired gunfighter}
R {a sheriff|a marshal|a cavalry officer|a rancher|a Texas Ranger} {with a fast draw|nearing the end of the trail|who \
hung up {his} guns}
R {a homesteader|a cattle baron|a saloon singer|an Apache scout|a prospector}
S in {the Old West|a lawless frontier town|Dodge City|the Arizona territory|Texas after the Civil War}
S on {a cattle drive|a wagon train|the prairie|the Mexican border|the stagecoach to Santa Fe}
G {bring in|hunt down} {the outlaws|a notorious gunman|a gang of bank robbers} {dead or alive|for the bounty}
G {defend|save} {the ranch|the homesteaders|the town|the gold mine} from {a ruthless cattle baron|bandits|a land \
grabber}
G drive {a herd of cattle|the wagons} {to Abilene|across Indian territory|to Montana}
E {outlaws|bandits|hired guns|cattle rustlers} {ride into town|rob the stagecoach|burn the ranch|raid the homestead}
E {the sheriff|a rancher|the marshal} is {shot in the back|killed in a gunfight|bought by the cattle baron}
E a {posse|cavalry patrol} {sets out across the desert|rides after the gang}
B It ends in a {showdown|gunfight} {on Main Street|at high noon|outside the saloon}
B {Gold|Cattle|Land|The railroad} {brings greed to the territory|sets ranchers against homesteaders}
R {a cavalry scout|a wagon master|a stagecoach driver|a hanging judge} {far from the fort|on the frontier}
S at {a remote trading post|a cavalry fort|a mining camp in the Sierra}
G {avenge|clear the name of} {his} brother, {hanged for rustling|shot in a saloon}
E {rustlers|deserters|railroad men} {surround the wagon train|poison the wells|claim the valley}
B {Six-guns|Rustlers and lawmen|Stolen horses} and {whiskey|a hangman's rope} {decide who owns the valley|make for a \
long ride}
""",
    "Foreign": """
R {a Parisian|a Neapolitan|a Bengali|an Icelandic|an Argentine|a Turkish} {shopkeeper|taxi driver|seamstress|civil \
servant|fisherman}
R {a Swedish|a Finnish|an Iranian|a Polish|a Brazilian|a Korean} {pensioner|tailor|schoolmaster|housewife|conscript}
S in {a village in Anatolia|a suburb of Helsinki|the old quarter of Lisbon|a fishing village in Kerala|the hills of \
Georgia}
S in {Buenos Aires|Tehran|Budapest|Copenhagen|Mumbai|Dakar|Bucharest} {today|in the nineties|after the fall of the \
regime}
G {obtain a visa|emigrate to Germany|return to {his} native village|find work in the capital}
G marry {off {his} daughter according to custom|outside {his} caste|for residence papers}
E {the village elders|the local party secretary|the imam|the parish priest} {intervene|forbid it|demand an answer}
E a letter from {relatives in Sweden|a cousin in Marseille|the consulate} {arrives in the village|upsets the household}
B The film observes {life in contemporary Iran|a Scandinavian community|the Hungarian provinces|a changing India} \
with {dry humor|patience|affection}
B {Customs|Village traditions|Bureaucracy} and {modern life|the new Europe|youth} {collide|are at odds}
R {a Kurdish|a Catalan|a Danish|a Senegalese} {musician|shepherd|midwife|bus conductor|postman}
S on {the outskirts of Cairo|a housing estate near Warsaw|an island in the Baltic|the plains of Punjab}
G {sell|keep} {the ancestral|the family's} {rice field|vineyard|tea house}
E {the grandmother|the landlord|the bride's uncle} {refuses to leave the village|arranges a match|returns from Germany}
B Spoken in {Hindi|Catalan|Icelandic|Tagalog|Flemish}, it {won prizes at festivals|was seen by few outside its country}
""",
    "TV Movie": """
R {a high-school cheerleader|a suburban mom|a big-city event planner|a television anchor|a popular sophomore}
R {a stepmother|an adoptive mother|a single mom|a widowed sheriff} {in a quiet gated community|with a picture-perfect \
life}
S in {this made-for-television|a two-part television|this cable} {movie|drama|special}
S in {a cozy small town|a ski lodge|an inn} at {Christmas time|the holidays}
G {organize|rescue} the {annual Christmas pageant|town's winter festival|prom|school musical}
G {expose|stop} {{his} daughter's manipulative boyfriend|a fake nanny|an online predator|the perfect new neighbor}
E the {pilot|special|reunion} {brings the cast of the series back together|picks up where the series ended}
E a {giant|swarm of} {shark|spiders|tornado|locusts} {threatens the coastal resort|is heading for Los Angeles}
B {Originally aired|First broadcast|Produced for cable} {as a holiday special|as a pilot for a series|on network \
television in {year}}
B Based on {the popular television series|a case that made national headlines|the best-selling young-adult books}
B {A reporter from the big city|{His} high-school sweetheart} {arrives just in time for the holidays|changes all \
plans for Christmas}
R {a rookie weather forecaster|a teenage pop fan|a devoted foster mom} {in a beach community|with a teenage daughter}
S in {the final episode of the saga|this reunion special|the third film of the cable series}
G {win|host} {a televised baking contest|the holiday parade|the homecoming dance}
E a {network|cable channel|teen idol} {comes to town|offers {him} a show of {his} own}
""",
}


def _words(text: str) -> list[str]:
    return [" ".join(item.split()) for item in text.split(";")]


FIRST_NAMES_F = _words(
    """
    Anna; Clara; Marie; Elena; Ruth; Nora; Julia; Grace; Hannah; Lucy; Ingrid; Maya; Leila; Sofia; Kate; Iris;
    Rosa; Vera; Alice; Dana; Yuki; Priya; Carmen; Esther; Ada; Molly; Tess; Judith; Beatriz; Zoë; Élise; Renée;
    Chloé; Agnès; Solveig; Inês
    """
)
FIRST_NAMES_M = _words(
    """
    Tom; Daniel; Martin; Peter; Jack; Leo; Walter; Frank; Samuel; Victor; Henry; Oscar; Paul; Miguel; Rafael;
    Kenji; Arjun; Omar; Ivan; Erik; Nathan; Eli; Gus; Felix; Simon; Hugo; Marco; Tariq; Liam; Ben; André; José;
    Jürgen; Søren; Björn; Tomás
    """
)
LAST_NAMES = _words(
    """
    Alder; Barrow; Calloway; Delacroix; Eastman; Farrow; Garrity; Holloway; Ibsen; Jarvis; Keller; Lindqvist;
    Marchetti; Novak; Okafor; Pemberton; Quill; Reyes; Sandoval; Thackeray; Ueda; Varga; Whitlock; Yarrow; Zeller;
    Brandt; Castellan; Dufresne; Moreau; Petrov; Ashworth; Bellamy; Corrigan; Drummond; Fenwick; Grady; Hatch;
    Kincaid; Lowell; Mercer; Núñez; O'Dell
    """
)
CITIES = _words(
    """
    Chicago; New York; London; Los Angeles; Berlin; Boston; Mexico City; Rome; Marseille; Detroit; Hong Kong;
    Dublin; Lisbon; Seattle; Montréal; São Paulo; Vienna; Glasgow; New Orleans; Tokyo; Sydney; Miami; Havana;
    Prague
    """
)
COUNTRIES = _words(
    """
    Ireland; Mexico; Argentina; Norway; Kenya; Poland; Japan; India; Canada; Italy; Australia; Portugal; Morocco
    """
)
TOWNS = _words(
    """
    Ashgrove; Cold Harbor; Mill Creek; Saint-Aubin; Larkspur; Dunmore; Red Hollow; Port Ellery; Fairhaven; Nether
    Combe; Stillwater; Juniper Falls; Brackwater; Linden; Casa Blanca; Oakridge; Kestrel Bay; Hartwell; Two
    Rivers; Westbrook
    """
)

OPENERS = """{S}, {hero}, {R}, must {G}
{S}, {R} {tries|struggles|hopes|sets out} to {G}
{hero}, {R}, {sets out|tries|is determined|is forced|agrees|wants} to {G}
{hero}, {R}, {has|is given} {one|a last} chance to {G}
{R} {must|has to|tries to} {G} when {E}
When {E}, {R} {has no choice but to|decides to|vows to} {G}
{S}, {E}, and {hero}, {R}, is {caught in the middle|drawn in|forced to act}
{This is the|The} story of {hero}, {R}, and {his} {attempt|struggle} to {G}
{hero} is {R}, {hoping|trying|longing} to {G}, until {E}
{R} and {R} {join forces|team up|travel together} to {G}
{M} {must|have to|try to} {G}
{S}, {M} {must|have to|set out to} {G}
{S}, {hero} {meets|crosses paths with|takes in} {R}, and {E}""".splitlines()

MIDDLES = """But {when|once} {E}, {hero} must {G}
{Soon|Before long|Then|One night|Meanwhile|Suddenly}, {E}
{Things change|The plan changes|Matters get worse|It all comes to a head} when {E}
{E}, and {hero} {realizes|discovers|learns} that {he} must {G}
To {G}, {he} will {first have|have} to {G}
With {the help of|only} {R}, {hero} {sets out|tries|attempts} to {G}
{E}, but {hero} is {determined|still trying|too proud not} to {G}
{At the same time|Elsewhere|A year later}, {S}, {E}
{friend}, {R}, {tries|offers|wants} to {G}
{hero} must {G} while {E}
Just as {hero} is about to {G}, {E}
{It turns out that|No one suspects that|The trouble is that} {E}
{Now {he}|{hero}} {has|is left with} only one thought: to {G}
{When|Whenever} {hero} tries to {G}, {friend} is {there to help|in the way}
{hero} {joins|meets|hides among} {M}, and {E}
With the help of {M}, {hero} {tries|hopes} to {G}
{First {E}; then|No sooner has the dust settled than} {E}""".splitlines()
BEAT = "{B}"

DOCUMENTARY_OPENERS = """{This documentary|The film|This film} {follows|profiles|is about} {R} {S}
{This documentary|The film|This film} {follows|profiles|is about} {M} {S}
{A documentary|A film} {about|on} {R} and the {struggle|effort} to {G}
{S}, this {documentary|film|portrait} sets out to {G}
A look at {R}, {made|filmed} {S}
{A camera crew|The director|A young filmmaker} sets out to {G} and meets {R}""".splitlines()
DOCUMENTARY_MIDDLES = """{Along the way|On camera|Meanwhile}, {E}
{S}, {E}
The aim is to {G}""".splitlines()

TITLES = """The {adjective} {noun}
The {adjective} {noun}
{adjective} {noun}
{noun} of {place}
The {noun} of {place}
{first}'s {noun}
{first} and {other}
The {last} {noun}
A {noun} for {first}
Return to {place}
{first} {last}
The Last {noun}
{noun} and {other_noun}
{number} {noun}s
{place}
The {noun} in the {other_noun}
Beyond the {noun}
Goodbye, {first}""".splitlines()
TITLE_ADJECTIVES = _words(
    """
    Silent; Broken; Golden; Hidden; Crimson; Burning; Distant; Empty; Forgotten; Gentle; Hollow; Iron; Quiet;
    Restless; Second; Secret; Seventh; Shallow; Stolen; Strange; Sudden; Tall; Tender; Third; Wild; Winter;
    Wooden; Paper; Bitter; Electric
    """
)
TITLE_NOUNS = _words(
    """
    River; Promise; House; Stranger; Road; Letter; Shadow; Garden; Night; Bridge; Heart; Island; Mirror; Summer;
    Harbor; Witness; Circle; Song; Door; Game; Kingdom; Hour; Train; Window; Sister; Debt; Signal; Orchard;
    Feather; Storm; Lantern; Voyage; Moon; Stone
    """
)
TITLE_NUMBERS = _words(
    """
    Two; Three; Five; Seven; Nine; Ten; Twelve; 101
    """
)
FOREIGN_TITLES = _words(
    """
    La {a} de {b}; L'été de {b}; Il {c} di {b}; Die {d} von {b}; El {c} de {b}; Mitt {c} med {b}; Ó {b}, minha
    {a}; {b}の夏; Последнее лето {b}; {b} की कहानी
    """
)
FOREIGN_WORDS = {"a": ["casa", "noche", "route", "maison", "vita"], "c": ["cielo", "viaje", "ponte", "sommar", "fuego"]}
FOREIGN_WORDS["d"] = ["Straße", "Nacht", "Brücke", "Stimme", "Blumen"]
TAGLINES = """{adjective} is only the beginning.
Every {noun} has a price.
One {noun}. One {other_noun}. No way back.
Some {noun}s never end.
{place} will never be the same.
You can't hide from the {noun}.
Who is {first}?
The {noun} was only the start...
It takes more than a {adjective} {noun}!""".splitlines()
COMPANIES = _words(
    """
    Lantern Row Pictures; Grey Heron Films; Halfmoon Productions; Kite & Anchor; Studio Vesper; Oberlicht
    Filmproduktion; Les Films du Passage; Northgate Entertainment; Tallgrass Media; Cinematográfica Aurora; Paper
    Lion; Sixth Street Pictures; Fjord Film; Hartley's Barn
    """
)


def phrases(bank: str) -> dict[str, list[str]]:
    """Return the phrases of one bank (a genre, or `NEUTRAL`) by kind, in the order they are written."""
    kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for line in _TEXTS[bank].strip().splitlines():
        kind, _, phrase = line.partition(" ")
        kinds[kind].append(phrase)
    return kinds
