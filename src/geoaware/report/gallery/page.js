"use strict";
(() => {
  // Text from the data only ever becomes text (append, textContent, setAttribute), never HTML.
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const NAMES = {
    correct: "correct", jitter: "jitter", miss: "miss", swap: "swap", swap_lr: "swap left-right",
    wrong: "wrong", unjudged: "not judged",
  };
  const RIGHT = new Set(["correct", "unjudged"]);
  const comparing = data.pairs.some((pair) => pair.runs.length > 1);
  const letter = (run) => (comparing ? "AB"[run] : "");
  const anyConfidence = data.pairs.some((pair) => pair.runs.some((run) => run.all.lowest !== null));
  const pck = data.alpha === null ? "correct" : `PCK@${data.alpha}`;

  // ---- state: what the controls say, and what the address holds ------------------------------------------

  const chosenSet = () => (at("aware").checked ? "aware" : "all");
  const figures = (pair, run = 0) => pair.runs[run][chosenSet()];
  const less = (a, b) => (a === null || b === null ? null : b - a);
  const SORTS = [
    { key: "mean", text: "mean error", order: "down", of: (pair) => figures(pair).mean },
    { key: "pck", text: "PCK", order: "up", of: (pair) => figures(pair).pck },
    { key: "worst", text: "worst keypoint", order: "down", of: (pair) => figures(pair).worst },
    { key: "confidence", text: "lowest confidence", order: "up", of: (pair) => figures(pair).lowest },
    {
      key: "change", text: "mean error of B minus that of A", order: "down",
      of: (pair) => (pair.runs.length > 1 ? less(figures(pair).mean, figures(pair, 1).mean) : null),
    },
    { key: "category", text: "category", order: "up", of: (pair) => pair.category },
    { key: "azimuth", text: "azimuth difference", order: "up", of: (pair) => pair.azimuth },
    { key: "name", text: "name", order: "up", of: (pair) => pair.id },
    { key: "file", text: "order in the file", order: "up", of: (pair) => pair.number },
  ];
  const sortOf = (key) => SORTS.find((each) => each.key === key);
  const CHOICES = ["category", "kind", "azimuth", "pose", "compare", "find"];
  let opened = null;

  function writeAddress() {
    const said = new URLSearchParams();
    const sort = at("sort").value;
    if (sort !== at("sort").options[0].value) said.set("sort", sort);
    if (at("order").value !== sortOf(sort).order) said.set("order", at("order").value);
    for (const each of CHOICES) if (at(each).value) said.set(each, at(each).value);
    if (at("aware").checked) said.set("aware", "1");
    if (!at("lines").checked) said.set("lines", "0");
    if (opened) said.set("pair", opened.id);
    history.replaceState(null, "", `#${said}`);
  }

  function choose(select, value) {
    const known = [...select.options].some((each) => each.value === value && !each.hidden);
    select.value = known ? value : select.options[0].value;
  }

  function readAddress() {
    const said = new URLSearchParams(location.hash.slice(1));
    choose(at("sort"), said.get("sort") ?? "");
    choose(at("order"), said.get("order") ?? sortOf(at("sort").value).order);
    for (const each of CHOICES) {
      if (at(each).tagName === "SELECT") choose(at(each), said.get(each) ?? "");
      else at(each).value = said.get(each) ?? "";
    }
    at("aware").checked = said.get("aware") === "1";
    at("lines").checked = said.get("lines") !== "0";
    const wanted = data.pairs.find((pair) => pair.id === said.get("pair")) ?? null;
    update();
    if (wanted) open(wanted);
    else close();
  }

  // ---- which pairs, in which order -----------------------------------------------------------------------

  const typesOf = (match) => match.types ?? [match.kind];
  const counts = (match) => !at("aware").checked || match.aware === true;
  const stands = (match) => counts(match) && (!at("kind").value || typesOf(match).includes(at("kind").value));

  function differs(pair, which) {
    if (pair.runs.length < 2) return false;
    const [better, worse] = which === "first" ? [0, 1] : [1, 0];
    return pair.runs[0].matches.some(
      (match, place) =>
        counts(match) &&
        pair.runs[better].matches[place].kind === "correct" &&
        pair.runs[worse].matches[place].kind !== "correct",
    );
  }

  function fits(pair) {
    const text = at("find").value.trim().toLowerCase();
    return (
      (!at("category").value || pair.category === at("category").value) &&
      (!at("azimuth").value || String(pair.azimuth) === at("azimuth").value) &&
      (!at("pose").value || pair.runs.some((run) => run.pose === at("pose").value)) &&
      (!text || [pair.id, ...pair.names].some((each) => each.toLowerCase().includes(text))) &&
      ((!at("kind").value && !at("aware").checked) || pair.runs.some((run) => run.matches.some(stands))) &&
      (!at("compare").value || differs(pair, at("compare").value))
    );
  }

  function ordered(pairs) {
    const { of } = sortOf(at("sort").value);
    const sign = at("order").value === "up" ? 1 : -1;
    const keyed = pairs.map((pair) => [of(pair), pair]);
    // What has no value comes last either way; equals stay as in the file.
    keyed.sort(([a, one], [b, other]) => {
      if (a === null || b === null) return (a === null) - (b === null) || one.number - other.number;
      return (a < b ? -sign : a > b ? sign : 0) || one.number - other.number;
    });
    return keyed.map(([, pair]) => pair);
  }

  // ---- drawing -------------------------------------------------------------------------------------------

  const CELL = 200;
  const GAP = 10;
  const SHAPES = {
    correct: (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
    jitter: (r) => `M0 ${-1.25 * r}L${1.15 * r} ${0.85 * r}H${-1.15 * r}z`,
    miss: (r) => `M${-r} ${-r}L${r} ${r}M${-r} ${r}L${r} ${-r}`,
    swap: (r) => `M${-r} ${-r}H${r}V${r}H${-r}z`,
    swap_lr: (r) => `M0 ${-1.4 * r}L${1.4 * r} 0L0 ${1.4 * r}L${-1.4 * r} 0z`,
  };
  SHAPES.unjudged = SHAPES.correct;
  SHAPES.wrong = SHAPES.miss;

  const DRAWN = new Set(["svg", "g", "path", "image", "rect", "text", "circle"]);
  function element(name, attributes = {}, children = []) {
    const made = DRAWN.has(name) ? document.createElementNS(at("svg").namespaceURI, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const rimmed = (path, place = {}) => [
    element("path", { class: "rim", d: path, ...place }),
    element("path", { class: "ink", d: path, ...place }),
  ];

  function mark(kind, [x, y], radius) {
    const cross = SHAPES[kind] === SHAPES.miss ? " cross" : "";
    return element("g", { class: `mark${cross}`, transform: `translate(${x} ${y})` }, rimmed(SHAPES[kind](radius)));
  }

  const addresses = new Map();
  /** Address of an embedded image, decoded when it is first needed and shared by all pairs. */
  function addressOf(number) {
    if (!addresses.has(number)) {
      const bytes = Uint8Array.from(atob(at(`image-${number}`).textContent), (each) => each.charCodeAt(0));
      addresses.set(number, URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" })));
    }
    return addresses.get(number);
  }

  const loading = [];

  const heightOf = ({ width, height, why }) => (why ? CELL : (CELL * height) / Math.max(width, height));

  /** An image in the middle of a cell, and where its pixels lie. */
  function placed(number, left, top, tall) {
    const { width, height, why } = data.images[number];
    if (why) {
      const box = element("rect", { class: "empty", x: left, y: top, width: CELL, height: tall });
      const words = wrapped(why, 34).map((line, row) =>
        element("text", { class: "why", x: left + CELL / 2, y: top + tall / 2 + 14 * row, "font-size": 10 }, [line]),
      );
      return { drawn: [box, ...words], put: () => null };
    }
    const scale = CELL / Math.max(width, height);
    const x = left + (CELL - width * scale) / 2;
    const y = top + (tall - height * scale) / 2;
    const image = element("image", {
      href: addressOf(number), x, y, width: width * scale, height: height * scale, preserveAspectRatio: "none",
    });
    if (!document.documentElement.dataset.ready) {
      loading.push(new Promise((done) => ["load", "error"].forEach((each) => image.addEventListener(each, done))));
    }
    // A pixel's number stands for its middle.
    return { drawn: [image], put: (point) => [x + (point[0] + 0.5) * scale, y + (point[1] + 0.5) * scale] };
  }

  function wrapped(text, width) {
    const lines = [""];
    for (const word of text.split(" ")) {
      if (lines.at(-1) && lines.at(-1).length + word.length >= width) lines.push("");
      lines[lines.length - 1] += (lines.at(-1) ? " " : "") + word;
    }
    return lines.slice(0, 6);
  }

  /** Both images of a pair, one beside or above the other, and the size of the whole. */
  function placedPair(pair, tight, stacked) {
    const heights = [pair.source, pair.target].map((each) => (tight && each !== null ? heightOf(data.images[each]) : CELL));
    const none = { drawn: [], put: () => null };
    if (pair.source === null) {
      return { source: none, target: placed(pair.target, 0, 0, heights[1]), box: [CELL, heights[1]] };
    }
    if (stacked) {
      const top = heights[0] + GAP;
      const target = placed(pair.target, 0, top, heights[1]);
      return { source: placed(pair.source, 0, 0, heights[0]), target, box: [CELL, top + heights[1]] };
    }
    const tall = Math.max(...heights);
    const target = placed(pair.target, CELL + GAP, 0, tall);
    return { source: placed(pair.source, 0, 0, tall), target, box: [2 * CELL + GAP, tall] };
  }

  /** A pair with one method's matches. Cards are all of one height; enlarged pairs are `tight`. */
  function draw(pair, run, radius, tight = false, stacked = false) {
    const { source, target, box } = placedPair(pair, tight, stacked);
    const lines = element("g");
    const marks = element("g");
    const { matches } = pair.runs[run];
    const order = [...matches.keys()].sort((a, b) => RIGHT.has(matches[b].kind) - RIGHT.has(matches[a].kind) || a - b);
    for (const number of order) {
      const match = matches[number];
      const state = [match.kind, ...(match.hidden ? ["unseen"] : []), ...(stands(match) ? [] : ["dim"])].join(" ");
      const [from, found, truth] = [
        match.source && source.put(match.source),
        match.found && target.put(match.found),
        match.truth && target.put(match.truth),
      ];
      const drawn = [];
      if (truth && !RIGHT.has(match.kind)) {
        if (found) drawn.push(element("g", { class: "truth" }, rimmed(`M${found}L${truth}`)));
        drawn.push(element("g", { class: "truth" }, rimmed(SHAPES.correct(0.8 * radius), { transform: `translate(${truth})` })));
      }
      for (const place of [from, found]) {
        if (!place) continue;
        drawn.push(mark(match.kind, place, radius));
        drawn.push(element("circle", { class: "hit", cx: place[0], cy: place[1], r: 2.2 * radius }));
      }
      if (from && found) {
        lines.append(element("g", { class: `line ${state}`, "data-match": number }, rimmed(`M${from}L${found}`)));
      }
      marks.append(element("g", { class: `match ${state}`, "data-match": number }, drawn));
    }
    const svg = element("svg", { viewBox: `0 0 ${box.join(" ")}`, role: "img", "aria-label": described(pair, run) }, [
      ...source.drawn, ...target.drawn, lines, marks,
    ]);
    const label = element("span", { class: "label" }, [letter(run)]);
    const figure = element("div", { class: "figure" }, comparing ? [label, svg] : [svg]);
    figure.style.aspectRatio = box.join(" / ");
    figure.source = pair.runs[run];
    return figure;
  }

  // ---- words ---------------------------------------------------------------------------------------------

  const number = (value) => value.toLocaleString("en");
  const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
  const kindsOf = (match) => typesOf(match).map((each) => NAMES[each]).join(", ");

  function factsOf(pair) {
    const poses = pair.runs.map((run) => run.pose);
    const turned = poses.every((each) => each === poses[0]) ? poses[0] : poses.map((each, run) => `${letter(run)} ${each}`).join(", ");
    return [
      pair.category,
      ...(pair.azimuth === null ? [] : [`azimuth ${45 * pair.azimuth}°`]),
      ...(turned === "identity" ? [] : [`source turned: ${turned}`]),
    ].filter(Boolean).join(" · ");
  }

  function figuresOf(pair, run) {
    const { points, correct, pck: share, mean, worst, lowest } = figures(pair, run);
    const judged = pair.runs[run].matches.filter((match) => counts(match) && match.error !== undefined);
    const name = judged.reduce((a, b) => (b.error > (a?.error ?? -1) ? b : a), null)?.name;
    return [
      ...(share === null ? [] : [`${pck} ${percent(share, 0)} (${correct}/${points})`]),
      ...(mean === null ? [] : [`mean ${mean.toFixed(3)}`, `worst ${worst.toFixed(2)} ${name}`]),
      ...(share === null ? [`${number(pair.runs[run].matches.length)} matches`] : []),
      ...(lowest === null ? [] : [`lowest confidence ${lowest.toFixed(2)}`]),
    ].join(" · ");
  }

  const described = (pair, run) =>
    `${pair.names[0] ? `${pair.names[0]} and ` : ""}${pair.names[1]}: ${figuresOf(pair, run)}`;

  // ---- the cards -----------------------------------------------------------------------------------------

  const cards = new Map();
  const pairOf = new Map();
  let shown = [];

  function cardOf(pair) {
    if (cards.has(pair)) return cards.get(pair);
    const button = element("button", { class: "card", type: "button", "aria-label": pair.id });
    const card = element("li", {}, [button]);
    button.addEventListener("click", () => open(pair));
    cards.set(pair, card);
    pairOf.set(card, pair);
    nearby.observe(card);
    return card;
  }

  function fill(card) {
    const pair = pairOf.get(card);
    const texts = [factsOf(pair), ...pair.runs.map((_, run) => (comparing ? `${letter(run)}: ` : "") + figuresOf(pair, run))];
    const lines = texts.map((text, row) => element("span", row ? { class: "figures" } : {}, [text]));
    const button = card.firstChild;
    button.setAttribute("aria-label", `${[pair.id, ...texts].join(". ")}. Enlarge`);
    button.replaceChildren(...pair.runs.map((_, run) => draw(pair, run, 4.2)), element("strong", {}, [pair.id]), ...lines);
  }

  const drawn = new Set();
  const nearby = new IntersectionObserver(
    (changes) => {
      for (const { target, isIntersecting } of changes) {
        if (isIntersecting) {
          if (!drawn.has(target)) fill(target);
          drawn.add(target);
        } else if (drawn.delete(target)) {
          // The images go, the words stay: they cost little and keep the card's height.
          target.querySelectorAll(".figure").forEach((figure) => figure.replaceChildren());
        }
      }
      ready();
    },
    { rootMargin: "500px" },
  );

  /** Says once, to whoever measures, that the first pairs are there with their images. */
  async function ready() {
    if (document.documentElement.dataset.ready) return;
    await Promise.all(loading.splice(0));
    requestAnimationFrame(() => {
      if (document.documentElement.dataset.ready) return;
      document.documentElement.dataset.ready = "true";
      performance.mark("drawn");
    });
  }

  // However many pairs there are, only those up to a little below the window are in the page.
  const AT_ONCE = 300;
  let laid = 0;

  /** Lay out cards up to one of the pairs shown. */
  function reach(place) {
    const end = Math.min(shown.length, Math.ceil((place + 1) / AT_ONCE) * AT_ONCE);
    if (end > laid) at("pairs").append(...shown.slice(laid, end).map(cardOf));
    laid = Math.max(laid, end);
  }

  const below = new IntersectionObserver(
    ([change]) => {
      if (!change.isIntersecting || laid >= shown.length) return;
      reach(laid);
      watchEnd();
    },
    { rootMargin: "3000px" },
  );

  /** Ask anew whether the end is near: an observer only tells of changes. */
  function watchEnd() {
    below.disconnect();
    below.observe(at("end"));
  }

  function update() {
    shown = ordered(data.pairs.filter(fits));
    at("pairs").classList.toggle("no-lines", !at("lines").checked);
    at("large").classList.toggle("no-lines", !at("lines").checked);
    at("pairs").replaceChildren();
    laid = 0;
    reach(0);
    watchEnd();
    at("none").hidden = shown.length > 0;
    drawn.forEach(fill);
    sumUp();
    writeAddress();
  }

  function sumUp() {
    const parts = [`${number(shown.length)} of ${number(data.pairs.length)} pairs`];
    for (const run of comparing ? [0, 1] : [0]) {
      const there = shown.filter((pair) => pair.runs[run]).map((pair) => figures(pair, run));
      const judged = there.filter((each) => each.points);
      const points = judged.reduce((sum, each) => sum + each.points, 0);
      const correct = judged.reduce((sum, each) => sum + each.correct, 0);
      const perImage = judged.reduce((sum, each) => sum + each.pck, 0) / judged.length;
      if (!points) continue;
      const whose = comparing ? `${letter(run)} ` : "";
      const what = at("aware").checked ? "geometry-aware keypoints" : "keypoints";
      parts.push(
        `${whose}${pck} ${percent(perImage)} per image, ${percent(correct / points)} per point (${number(points)} ${what})`,
      );
    }
    at("summary").textContent = parts.join(" · ");
    explain();
  }

  /** How many matches of a method are of each kind, among the pairs shown. */
  function tally(run) {
    const of = Object.fromEntries(Object.keys(data.kinds).map((kind) => [kind, 0]));
    const there = shown.flatMap((pair) => pair.runs[run]?.matches ?? []).filter(counts);
    for (const match of there) for (const kind of typesOf(match)) of[kind] += 1;
    return { total: there.length, of };
  }

  function explain() {
    const found = comparing ? [tally(0), tally(1)] : [tally(0)];
    at("legend").replaceChildren(
      ...kindsHere.map((kind) => {
        const shares = found.map(
          ({ total, of }, run) => (comparing ? `${letter(run)} ` : "") + number(of[kind]) + (total ? ` (${percent(of[kind] / total)})` : ""),
        );
        const share = element("span", { class: "share" }, [shares.join(", ")]);
        const made = element("li", { title: data.kinds[kind] }, [sample(kind), NAMES[kind], share]);
        made.dataset.kind = kind;
        made.dataset.count = found[0].of[kind];
        return made;
      }),
      ...(kindsHere.some((kind) => !RIGHT.has(kind)) ? [element("li", {}, [truthSample(), "true place of a wrong match"])] : []),
    );
  }

  function sample(kind, small = false) {
    const line = element("g", { class: `line ${kind}` }, rimmed("M2 9L32 9"));
    const box = small ? "8 0 18 18" : "0 0 34 18";
    const svg = element("svg", { viewBox: box, "aria-hidden": "true", class: "sample" }, small ? [] : [line]);
    svg.append(element("g", { class: kind }, [mark(kind, [17, 9], 5)]));
    return svg;
  }

  function truthSample() {
    const svg = element("svg", { viewBox: "0 0 34 18", "aria-hidden": "true", class: "sample" });
    svg.append(element("g", { class: "truth" }, rimmed("M4 9L22 9")));
    svg.append(element("g", { class: "truth" }, rimmed(SHAPES.correct(4), { transform: "translate(26 9)" })));
    return svg;
  }

  // ---- the enlarged pair ---------------------------------------------------------------------------------

  function open(pair) {
    opened = pair;
    at("large-title").textContent = pair.id;
    const names = pair.names.filter(Boolean).join(" → ");
    at("large-facts").textContent = [[factsOf(pair), names].filter(Boolean).join(" · "), pair.note].filter(Boolean).join("\n");
    const stacked = innerWidth < 600;
    at("large-runs").replaceChildren(
      ...pair.runs.map((run, place) => {
        const scroll = element("div", { class: "scroll" }, [table(pair, place)]);
        return element("div", { class: "run" }, [draw(pair, place, stacked ? 3.2 : 2.6, true, stacked), scroll]);
      }),
    );
    if (!at("large").open) at("large").showModal();
    const place = shown.indexOf(pair);
    at("previous").disabled = place <= 0;
    at("next").disabled = place < 0 || place === shown.length - 1;
    writeAddress();
  }

  function close() {
    if (at("large").open) at("large").close();
  }

  function table(pair, run) {
    const columns = ["keypoint", "kind", "error", ...(anyConfidence ? ["confidence"] : [])];
    const cell = (name, text) => element(name, {}, [text]);
    const rows = pair.runs[run].matches.map((match, place) => {
      return element("tr", { tabindex: "0", "data-match": place, class: stands(match) ? "" : "aside" }, [
        element("td", {}, [sample(match.kind, true), match.name]),
        cell("td", [kindsOf(match), ...(match.aware ? ["geometry-aware"] : []), ...(match.hidden ? ["not visible"] : [])].join(", ")),
        cell("td", match.error?.toFixed(3) ?? ""),
        ...(anyConfidence ? [cell("td", match.confidence?.toFixed(2) ?? "")] : []),
      ]);
    });
    return element("table", {}, [
      cell("caption", `${comparing ? `${letter(run)} (${data.labels[run] ?? ""}): ` : ""}${figuresOf(pair, run)}`),
      element("thead", {}, [element("tr", {}, columns.map((each) => cell("th", each)))]),
      element("tbody", {}, rows),
    ]);
  }

  /** Lift one match out of its figure, and out of the table beside it. */
  function lift(node) {
    document.querySelectorAll(".hot, .some-hot").forEach((each) => each.classList.remove("hot", "some-hot"));
    at("tip").hidden = true;
    const part = node?.closest?.("[data-match]");
    const around = part?.closest(".run, .figure");
    if (!around) return;
    const figure = around.matches(".figure") ? around : around.querySelector(".figure");
    (around.closest(".run") ?? around).querySelectorAll(`[data-match="${part.dataset.match}"]`).forEach((each) => each.classList.add("hot"));
    figure.classList.add("some-hot");
    const match = figure.source.matches[part.dataset.match];
    const words = [
      match.name,
      kindsOf(match),
      ...(match.error === undefined ? [] : [`error ${match.error.toFixed(3)} of the threshold base`]),
      ...(match.confidence === undefined ? [] : [`confidence ${match.confidence.toFixed(2)}`]),
      ...(match.aware ? ["geometry-aware"] : []),
    ];
    show(words.join("\n"), figure.querySelector(`g.match[data-match="${part.dataset.match}"]`));
  }

  function show(text, beside) {
    const tip = at("tip");
    tip.textContent = text;
    tip.hidden = false;
    // A dialog lies above everything else, so the words have to be in it.
    (at("large").open ? at("large") : document.body).append(tip);
    const marks = beside.querySelectorAll(".hit");
    if (!marks.length) return;
    const box = marks[marks.length - 1].getBoundingClientRect();
    const edge = Math.min(innerWidth - 6, beside.closest(".figure").getBoundingClientRect().right);
    const left = Math.min(box.right + 6, edge - tip.offsetWidth);
    const top = Math.min(box.bottom + 2, innerHeight - tip.offsetHeight - 6);
    tip.style.left = `${Math.max(left, 4)}px`;
    tip.style.top = `${Math.max(top, 4)}px`;
  }

  // ---- keys and controls ---------------------------------------------------------------------------------

  function step(by) {
    if (opened) {
      const next = shown[shown.indexOf(opened) + by];
      if (shown.includes(opened) && next) open(next);
      return;
    }
    const card = document.activeElement.closest("#pairs > li");
    focus(Math.max(0, (card ? shown.indexOf(pairOf.get(card)) : -1) + by));
  }

  function focus(place) {
    if (!shown[place]) return;
    reach(place);
    const card = cardOf(shown[place]);
    card.firstChild.focus();
    card.scrollIntoView({ block: "nearest" });
  }

  const KEYS = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox]), select");
    if (event.ctrlKey || event.metaKey || event.altKey || typing || !(event.key in KEYS)) return;
    event.preventDefault();
    step(KEYS[event.key]);
  });
  for (const each of ["pointerover", "focusin"]) document.addEventListener(each, (event) => lift(event.target));
  at("large").addEventListener("close", () => {
    const last = opened;
    opened = null;
    lift(null);
    writeAddress();
    focus(shown.indexOf(last));
  });
  at("close").addEventListener("click", close);
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("sort").addEventListener("change", () => {
    at("order").value = sortOf(at("sort").value).order;
    update();
  });
  for (const each of ["order", "category", "kind", "azimuth", "pose", "compare", "aware", "lines"]) {
    at(each).addEventListener("change", update);
  }
  at("find").addEventListener("input", update);
  at("reset").addEventListener("click", () => {
    history.replaceState(null, "", "#");
    readAddress();
  });
  addEventListener("hashchange", readAddress);

  // ---- start ---------------------------------------------------------------------------------------------

  function offer(id, options, least = 2) {
    at(id).append(...options.map(([value, text]) => element("option", { value }, [text])));
    at(id).parentElement.hidden = options.length < least;
  }

  const different = (values) => [...new Set(values)].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  const matches = data.pairs.flatMap((pair) => pair.runs.flatMap((run) => run.matches));
  const present = new Set(matches.flatMap(typesOf));
  const kindsHere = Object.keys(data.kinds).filter((kind) => present.has(kind));

  data.pairs.forEach((pair, place) => { pair.number = place; });
  offer("sort", SORTS.filter(({ of }) => data.pairs.some((pair) => of(pair) !== null)).map(({ key, text }) => [key, text]));
  offer("category", different(data.pairs.map((pair) => pair.category)).filter(Boolean).map((each) => [each, each]));
  offer("kind", kindsHere.map((kind) => [kind, NAMES[kind]]));
  offer("azimuth", different(data.pairs.map((pair) => pair.azimuth).filter((each) => each !== null)).map((each) => [each, `${45 * each}°`]));
  offer("pose", different(data.pairs.flatMap((pair) => pair.runs.map((run) => run.pose))).map((each) => [each, each]));
  at("compare").parentElement.hidden = !comparing;
  at("aware").parentElement.hidden = !matches.some((match) => match.aware);
  readAddress();
})();
