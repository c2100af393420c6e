"""The style sheet of the report: system fonts, light and dark, one column on a phone."""

CSS = """
:root{--bg:#f7f7f5;--panel:#fff;--ink:#1c1e21;--soft:#646a73;--line:#e3e3de;--good:#12805c;--fair:#b0730a;--bad:#c2342b;
--goodbg:#e4f4ed;--badbg:#fbe9e7;--fairbg:#fdf3df;--accent:#ee5928}
@media (prefers-color-scheme:dark){:root{--bg:#131518;--panel:#1c1f24;--ink:#e9eaec;--soft:#9aa1ab;--line:#30343b;
--good:#4cc79a;--fair:#e5b04c;--bad:#ff7a6e;--goodbg:#15322a;--badbg:#3b1e1c;--fairbg:#382c14}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:70rem;margin:0 auto;padding:2rem 1.1rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .5rem;letter-spacing:-.02em;text-wrap:balance}
h2{font-size:1.25rem;margin:0 0 .35rem;letter-spacing:-.01em}
h3{font-size:.82rem;font-weight:600;color:var(--soft);margin:0 0 .5rem}
p{margin:.2rem 0 1rem;max-width:46rem}
header p{color:var(--soft);font-size:1.05rem}
section,footer{margin-top:2.6rem}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11.5rem,1fr));gap:.8rem;margin-top:1.4rem}
.card{background:var(--panel);border:1px solid var(--line);border-radius:.8rem;padding:.9rem 1.1rem;
border-top:4px solid var(--soft)}
.card span,.card small{display:block;color:var(--soft);font-size:.85rem}
.card strong{display:block;font-size:2.1rem;line-height:1.25;letter-spacing:-.03em;font-variant-numeric:tabular-nums}
.card.good{border-top-color:var(--good)}.card.good strong{color:var(--good)}
.card.fair{border-top-color:var(--fair)}.card.fair strong{color:var(--fair)}
.card.bad{border-top-color:var(--bad)}.card.bad strong{color:var(--bad)}
.strips{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:.8rem}
.strips.wide{grid-template-columns:1fr}.wide .pictures{grid-template-columns:repeat(auto-fill,minmax(5.6rem,1fr))}
.strip{background:var(--panel);border:1px solid var(--line);border-radius:.8rem;padding:.8rem .9rem}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(3.8rem,1fr));gap:.55rem}
figure{margin:0;min-width:0}
img{display:block;width:100%;aspect-ratio:1;object-fit:contain;image-rendering:pixelated;border-radius:.35rem;
background:#000}
figcaption{font-size:.74rem;line-height:1.3;color:var(--soft);margin-top:.3rem;overflow-wrap:anywhere}
figcaption b{display:table;font-size:.92rem;padding:0 .35rem;border-radius:.3rem;margin-top:.1rem;color:var(--ink)}
figcaption b.good{color:var(--good);background:var(--goodbg)}
figcaption b.bad{color:var(--bad);background:var(--badbg)}
.scroll{overflow-x:auto;background:var(--panel);border:1px solid var(--line);border-radius:.8rem}
table{border-collapse:collapse;width:100%;font-size:.94rem}
.scroll.narrow{max-width:30rem}
th,td{padding:.6rem .9rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
tbody tr:last-child>*{border-bottom:0}
thead th{font-size:.8rem;color:var(--soft);font-weight:600;white-space:nowrap}
tbody th{font-weight:600;min-width:11rem}
th small,td small{display:block;font-weight:400;color:var(--soft);font-size:.76rem;line-height:1.35}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.default>*{background:color-mix(in srgb,var(--accent) 9%,transparent)}
tr.plain>*{background:color-mix(in srgb,var(--soft) 8%,transparent)}
.bar{display:block;height:.28rem;border-radius:.2rem;background:var(--line);margin-top:.3rem;min-width:4.5rem;overflow:hidden}
.bar i{display:block;height:100%;background:var(--soft)}
.bar.good i{background:var(--good)}.bar.fair i{background:var(--fair)}.bar.bad i{background:var(--bad)}
.notes{font-size:.84rem;color:var(--soft)}
.notes p,.notes li{max-width:none;margin:.35rem 0}
ol.notes{padding-left:1.2rem;margin:.9rem 0 0}
footer dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1.2rem;font-size:.84rem;margin:.4rem 0}
footer dt{color:var(--soft)}footer dd{margin:0;overflow-wrap:anywhere}
@media (max-width:34rem){main{padding:1.3rem .8rem 3rem}h1{font-size:1.5rem}footer dl{grid-template-columns:1fr}
footer dt{margin-top:.35rem}th,td{padding:.5rem .6rem}tbody th{min-width:8.5rem}}
"""
