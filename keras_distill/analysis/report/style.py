"""Style of the page: one column on a phone, light or dark as the device is set."""

# Color variables of the series: the teacher, then the students; repeated after the last.
SERIES = 8

STYLE = """
:root { color-scheme: light dark;
  --page: #ffffff; --card: #f6f7f9; --text: #1d2330; --soft: #5b6472; --line: #d5d9e0;
  --gain: #0b7a75; --loss: #c2410c;
  --series-0: #1d2330; --series-1: #1f6feb; --series-2: #c2410c; --series-3: #0b7a75;
  --series-4: #8b3fc7; --series-5: #b7791f; --series-6: #d1246b; --series-7: #64748b }
@media (prefers-color-scheme: dark) { :root {
  --page: #12151c; --card: #1b2029; --text: #e6e9ef; --soft: #9aa4b2; --line: #343c4a;
  --gain: #2dd4bf; --loss: #fb923c;
  --series-0: #e6e9ef; --series-1: #6cb2ff; --series-2: #fb923c; --series-3: #2dd4bf;
  --series-4: #c99cf5; --series-5: #eac54f; --series-6: #f778ba; --series-7: #94a3b8 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif }
main, header { max-width: 74rem; margin: 0 auto; padding: 0 1rem }
header { padding-top: 1.5rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .3rem; padding-top: .8rem;
  border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1rem 0 .2rem }
p { margin: .2rem 0 .7rem; max-width: 46rem }
.soft, figcaption, summary { color: var(--soft) }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .6rem 0 }
a { color: var(--series-1) }
.key { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .4rem 0; padding: 0;
  list-style: none; font-size: .9rem }
.panels { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)) }
.panels figure { max-width: 30rem }
figure { margin: 0; background: var(--card); border-radius: .5rem; padding: .5rem }
figcaption { font-size: .9rem; padding: 0 .3rem .2rem }
figure svg { display: block; width: 100%; height: auto }
svg text { font-family: inherit !important }
.scroll { overflow-x: auto; margin: .6rem 0 }
.scroll figure { min-width: 44rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top }
th { font-weight: 600; color: var(--soft) }
thead th { vertical-align: bottom }
tbody th { color: var(--text) }
.left td:last-child { min-width: 18rem }
th:first-child, td:first-child, .left td, .left th { text-align: left }
th:first-child { position: sticky; left: 0; background: var(--page) }
.cards { display: grid; gap: .6rem; margin: .4rem 0 1rem;
  grid-template-columns: repeat(auto-fill, minmax(6.8rem, 1fr)) }
.cards img { width: 100%; aspect-ratio: 1; object-fit: contain;
  image-rendering: pixelated }
.cards figcaption { font-size: .78rem; line-height: 1.35; overflow-wrap: anywhere }
.cards b { color: var(--text) }
footer { max-width: 74rem; margin: 2rem auto; padding: 0 1rem }
""".strip()
