// The language switch and the referral tree. Amounts are BigInt from text to text; numbers are for drawing and counting people only.
"use strict";
(() => {
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);

  // ------------------------------------------------------------ language

  const choose = (language) => {
    root.lang = language;
    for (const button of document.querySelectorAll("[data-language]")) {
      button.setAttribute("aria-pressed", String(button.dataset.language === language));
    }
    dispatchEvent(new Event("language"));
  };
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => choose(button.dataset.language));
  }
  if (navigator.language.startsWith("zh")) choose("zh-Hans");

  // An explanation that is linked to opens, and so does whatever it stands in.
  const reveal = () => {
    const target = location.hash.length > 1 && $(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();

  // ------------------------------------------------------------ pieces

  const make = (tag, attributes, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== null) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  };
  const hex = (sign) => "\\u" + sign.charCodeAt(0).toString(16).padStart(4, "0");
  const seen = (text) =>
    text.replace(/[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]/g, hex);
  const ident = (text) => make("bdi", { class: "id" }, seen(text));
  const grouped = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ",");

  // The page is there before the data is read.
  const start = () => {
    const data = JSON.parse($("data").textContent);
    const { ids, words, decimals, currency } = data;
    const total = ids.length;
    const parents = Int32Array.from(data.parents);
    const both = (name, ...values) => {
      const filled = words[name].map((word) => word.replace(/\{(\d)\}/g, (_, at) => values[at]));
      const span = document.createDocumentFragment();
      span.append(make("span", { lang: "en" }, filled[0]), make("span", { lang: "zh-Hans" }, filled[1]));
      return span;
    };
    const inLanguage = (name, ...values) =>
      words[name][root.lang === "en" ? 0 : 1].replace(/\{(\d)\}/g, (_, at) => values[at]);
    const money = (minor) => {
      const sign = minor < 0n ? "-" : "";
      const digits = String(minor < 0n ? -minor : minor).padStart(decimals + 1, "0");
      const whole = digits.slice(0, digits.length - decimals);
      return sign + grouped(whole) + (decimals ? "." + digits.slice(-decimals) : "");
    };
    const amount = (minor) =>
      make("span", { class: minor === 0n ? "zero" : minor < 0n ? "minus" : null }, money(minor));
    const column = (name) => data[name].split(",");
    const bigs = (name) => column(name).map((text) => BigInt(text || 0));
    const own = bigs("own"), earned = bigs("earned"), orders = column("orders").map(Number);
    const lazily = {};
    const balance = (name, at) => {
      lazily[name] ??= column(name);
      return BigInt(lazily[name][at] || 0);
    };

    // Everybody stands before those below them, so one walk from the end adds up all branches. A branch is a range.
    const people = new Int32Array(total).fill(1);
    const levels = new Int32Array(total);
    const team = new Array(total).fill(0n);
    for (let at = total - 1; at >= 0; at--) {
      const above = parents[at];
      if (above >= 0) {
        people[above] += people[at];
        levels[above] = Math.max(levels[above], levels[at] + 1);
        team[above] += team[at] + own[at];
      }
    }
    const children = (at) => {
      const found = [];
      const end = at < 0 ? total : at + people[at];
      for (let next = at + 1; next < end; next += people[next]) found.push(next);
      return found;
    };
    const path = (at) => {
      const found = [];
      for (let up = at; up >= 0; up = parents[up]) found.unshift(up);
      return found;
    };

    let focus = -1;
    let selected = -1;

    // ------------------------------------------------------------ the drawing

    const canvas = $("icicle");
    const ROW = 36, GAP = 1, SHOWN = 7;
    // Tiers from the lowest to the highest; beyond these the last colour is used again.
    const FILLS = ["#eef1f4", "#d3e2ec", "#a9c8dc", "#77a8c6", "#42809f", "#1f5f8b", "#12415f"];
    const fill = (tier) => FILLS[Math.min(tier, FILLS.length - 1)];
    let boxes = [];
    let measure = "people";
    const summed = {};
    // What a branch weighs, for drawing alone: losses weigh nothing.
    const weights = () => {
      if (!summed[measure]) {
        const sums = new Float64Array(total);
        for (let at = total - 1; at >= 0; at--) {
          sums[at] += measure === "people" ? 1 : Math.max(0, Number(measure === "volume" ? own[at] : earned[at]));
          if (parents[at] >= 0) sums[parents[at]] += sums[at];
        }
        summed[measure] = sums;
      }
      return summed[measure];
    };
    // As much of a name as there is room for; less than three signs say nothing.
    const fitted = (pen, text, room) => {
      if (pen.measureText(text).width <= room) return text;
      let length = Math.min(text.length, 60);
      while (length && pen.measureText(text.slice(0, length) + "…").width > room) length--;
      return length > 2 ? text.slice(0, length) + "…" : "";
    };
    const draw = () => {
      const width = canvas.clientWidth, height = canvas.clientHeight, scale = devicePixelRatio || 1;
      if (!width) return;
      canvas.width = width * scale;
      canvas.height = height * scale;
      const pen = canvas.getContext("2d");
      pen.scale(scale, scale);
      pen.font = "12px " + getComputedStyle(root).fontFamily;
      pen.textBaseline = "middle";
      boxes = [];
      const weigh = weights();
      const box = (at, row, x, w) => {
        boxes.push({ at, row, x, w });
        const tier = data.tier[at], y = row * (ROW + GAP);
        const inner = Math.max(w - GAP, 0.6);
        pen.fillStyle = fill(tier);
        pen.fillRect(x, y, inner, ROW);
        if (at === selected) {
          pen.strokeStyle = "#1b2430";
          pen.lineWidth = 2;
          pen.strokeRect(x + 1, y + 1, Math.max(inner - 2, 1), ROW - 2);
        }
        if (w > 40) {
          pen.fillStyle = tier >= 4 ? "#fff" : "#1b2430";
          const label = fitted(pen, seen(ids[at]), w - 16);
          pen.fillText(label, x + 7, y + ROW / 2);
          const length = pen.measureText(label).width + 16;
          if (people[at] > 1 && w > length + 48) {
            pen.globalAlpha = 0.65;
            pen.fillText(grouped(people[at]), x + length, y + ROW / 2);
            pen.globalAlpha = 1;
          }
        }
      };
      // Those too narrow to be seen are one grey block together.
      const rest = (row, x, w, count) => {
        if (w < 1) return;
        boxes.push({ at: -1, row, x, w, count });
        pen.fillStyle = "#f3f5f7";
        pen.fillRect(x, row * (ROW + GAP), w - GAP, ROW);
      };
      const below = (at, row, x, w, whole) => {
        if (row >= SHOWN || !whole) return;
        const kids = children(at);
        if (measure !== "people") kids.sort((one, other) => weigh[other] - weigh[one]);
        let left = x, hidden = 0, hiddenWeight = 0;
        for (const kid of kids) {
          const wide = (w * weigh[kid]) / whole;
          if (wide < 1.5) {
            hidden += people[kid];
            hiddenWeight += weigh[kid];
            continue;
          }
          box(kid, row, left, wide);
          below(kid, row + 1, left, wide, weigh[kid]);
          left += wide;
        }
        if (hidden) rest(row, left, (w * hiddenWeight) / whole, hidden);
      };
      if (focus >= 0) {
        box(focus, 0, 0, width);
        below(focus, 1, 0, width, weigh[focus]);
      } else {
        below(-1, 0, 0, width, children(-1).reduce((sum, at) => sum + weigh[at], 0));
      }
    };
    const under = (event) => {
      const area = canvas.getBoundingClientRect();
      const x = event.clientX - area.left, row = Math.floor((event.clientY - area.top) / (ROW + GAP));
      return boxes.find((box) => box.row === row && x >= box.x && x < box.x + box.w);
    };
    canvas.addEventListener("mousemove", (event) => {
      const box = under(event);
      const tier = box && box.at >= 0 && data.tiers[data.tier[box.at]];
      $("hint").textContent = !box
        ? ""
        : box.at < 0
          ? inLanguage("smaller", grouped(box.count))
          : [
              seen(ids[box.at]),
              tier ? seen(tier) : inLanguage("no-tier"),
              `${inLanguage("below")} ${grouped(people[box.at] - 1)}`,
              `${inLanguage("team")} ${money(team[box.at])}`,
              `${inLanguage("earned")} ${money(earned[box.at])} ${currency}`,
            ].join("  ·  ");
    });
    canvas.addEventListener("mouseleave", () => ($("hint").textContent = ""));
    canvas.addEventListener("click", (event) => {
      const box = under(event);
      if (!box || box.at < 0) return;
      // The topmost block leads back up.
      zoom(box.at === focus ? parents[focus] : people[box.at] > 1 ? box.at : focus);
      if (box.at !== focus || focus < 0) select(box.at);
    });
    for (const choice of document.getElementsByName("by")) {
      choice.addEventListener("change", () => {
        measure = choice.value;
        draw();
      });
    }
    addEventListener("resize", draw);
    addEventListener("beforeprint", draw);
    const used = new Set(data.tier);
    data.tiers.forEach((tier, at) => {
      if (!used.has(at)) return;
      const swatch = make("span", { class: "swatch" });
      swatch.style.background = fill(at);
      $("legend").append(make("span", {}, swatch, tier ? make("bdi", {}, seen(tier)) : both("no-tier")));
    });

    // ------------------------------------------------------------ the table

    const FIRST = 20, MORE = 100, FARTHEST = 500;
    const opened = new Set();
    const shown = new Map();
    const body = make("tbody");
    const heads = ["member", "tier", "below", "levels", "orders", "own", "team", "earned"];
    $("branches").append(
      make("thead", {}, make("tr", {}, ...heads.map((name, at) => make("th", { scope: "col", class: at > 1 ? "n" : null }, both(name))))),
      body,
    );
    const row = (at, level) => {
      const inner = people[at] > 1, open = opened.has(at);
      const indent = make("span", { class: "indent" });
      indent.style.width = `${Math.min(level, 24) * 18}px`;
      const turn = inner
        ? make("button", { class: "turn", type: "button", tabindex: "-1", "aria-label": inLanguage(open ? "collapse" : "expand"),
            onclick: (event) => { event.stopPropagation(); toggle(at); } }, open ? "▾" : "▸")
        : make("span", { class: "turn leaf", "aria-hidden": "true" }, "·");
      const tier = data.tiers[data.tier[at]], mark = Number(data.marks[at]);
      const name = make("th", { scope: "row" }, indent, turn, ident(ids[at]));
      if (!(mark & 1)) name.append(make("span", { class: "open" }, both("open")));
      const tierCell = make("td", {}, tier ? make("bdi", {}, seen(tier)) : "–");
      if (mark & 2) tierCell.append(" (", both("frozen"), ")");
      const count = (value) => make("td", { class: "n" }, make("span", { class: value ? null : "zero" }, grouped(value)));
      const made = make(
        "tr",
        { "data-at": at, "aria-level": level + 1, "aria-expanded": inner ? String(open) : null, "aria-selected": String(at === selected), tabindex: "-1",
          onclick: () => select(at), ondblclick: () => zoom(at) },
        name, tierCell, count(people[at] - 1), count(levels[at]), count(orders[at]),
        ...[own[at], team[at], earned[at]].map((value) => make("td", { class: "n" }, amount(value))),
      );
      return made;
    };
    const fillTable = (keep) => {
      const rows = document.createDocumentFragment();
      // A stack, not recursion: a line of people may be longer than calls may nest.
      const stack = [];
      const branch = (at, level) => {
        const kids = children(at), limit = shown.get(at) || FIRST;
        if (kids.length > limit) stack.push({ more: at, left: kids.length - limit, level });
        for (let index = Math.min(kids.length, limit) - 1; index >= 0; index--) stack.push({ at: kids[index], level });
      };
      if (focus >= 0) stack.push({ at: focus, level: 0 });
      else branch(-1, 0);
      while (stack.length) {
        const next = stack.pop();
        if (next.more !== undefined) {
          const step = Math.min(MORE, next.left);
          const button = make("button", { type: "button", onclick: () => {
            shown.set(next.more, (shown.get(next.more) || FIRST) + MORE);
            fillTable();
          } }, both("more", grouped(step), grouped(next.left)));
          const indent = make("span", { class: "indent" });
          indent.style.width = `${Math.min(next.level, 24) * 18 + 22}px`;
          rows.append(make("tr", { class: "more" }, make("td", { colspan: heads.length }, indent, button)));
        } else {
          rows.append(row(next.at, next.level));
          if (opened.has(next.at)) branch(next.at, next.level + 1);
        }
      }
      body.replaceChildren(rows);
      const kept = (keep !== undefined && body.querySelector(`[data-at="${keep}"]`)) || null;
      const entry = kept || body.querySelector("[data-at]");
      if (entry) entry.tabIndex = 0;
      if (kept) kept.focus({ preventScroll: true });
    };
    const toggle = (at) => {
      if (!opened.delete(at)) opened.add(at);
      fillTable(at);
    };
    body.addEventListener("keydown", (event) => {
      const here = event.target.closest("[data-at]");
      if (!here || event.target !== here) return;
      const at = Number(here.dataset.at), all = [...body.querySelectorAll("[data-at]")], index = all.indexOf(here);
      const go = (to) => {
        if (!to) return;
        here.tabIndex = -1;
        to.tabIndex = 0;
        to.focus();
      };
      const inner = people[at] > 1;
      if (event.key === "ArrowDown") go(all[index + 1]);
      else if (event.key === "ArrowUp") go(all[index - 1]);
      else if (event.key === "Home") go(all[0]);
      else if (event.key === "End") go(all[all.length - 1]);
      else if (event.key === "ArrowRight" && inner && !opened.has(at)) toggle(at);
      else if (event.key === "ArrowRight" && inner) go(all[index + 1]);
      else if (event.key === "ArrowLeft" && opened.has(at)) toggle(at);
      else if (event.key === "ArrowLeft") go(body.querySelector(`[data-at="${parents[at]}"]`));
      else if (event.key === "Enter" || event.key === " ") select(at);
      else return;
      event.preventDefault();
    });

    // ------------------------------------------------------------ one member

    const panel = $("member");
    const select = (at) => {
      selected = at;
      for (const one of body.querySelectorAll('[aria-selected="true"]')) one.setAttribute("aria-selected", "false");
      const there = body.querySelector(`[data-at="${at}"]`);
      if (there) there.setAttribute("aria-selected", "true");
      const tier = data.tiers[data.tier[at]], mark = Number(data.marks[at]);
      const bound = make("span", {}, parents[at] < 0 ? both("nobody") : ident(ids[parents[at]]), " (", both(mark & 1 ? "locked" : "open"), ")");
      const standing = make("span", {}, tier ? make("bdi", {}, seen(tier)) : both("no-tier"), ...(mark & 2 ? [" (", both("frozen"), ")"] : []));
      const told = [
        ["tier", standing], ["brought", bound], ["below", grouped(people[at] - 1)], ["levels", grouped(levels[at])],
        ["orders", grouped(orders[at])], ["own", amount(own[at])], ["team", amount(team[at])], ["earned", amount(earned[at])],
        ...["pending", "available", "reserved", "paid"].map((name) => [name, amount(balance(name, at))]),
        ["debt", amount(-balance("debt", at))],
      ];
      const list = make("dl", {}, ...told.map(([name, value]) => make("div", {}, make("dt", {}, both(name)), make("dd", {}, value))));
      panel.replaceChildren(make("h3", {}, ident(ids[at])), list);
      if (people[at] > 1 && at !== focus) {
        panel.append(make("p", {}, make("button", { type: "button", onclick: () => zoom(at) }, both("zoom"))));
      }
      // Names of members are keys of a plain object: only its own ones count.
      const explained = Object.hasOwn(data.explained, ids[at]) ? data.explained[ids[at]] : [];
      if (explained.length) {
        const links = explained.flatMap((posting) => [" ", make("a", { href: `#posting-${posting}` }, posting)]);
        panel.append(make("p", {}, both("explained"), ":", ...links));
      }
      panel.hidden = false;
      draw();
    };

    // ------------------------------------------------------------ moving about

    const zoom = (at) => {
      focus = at;
      if (at >= 0) opened.add(at);
      const up = path(at);
      const crumb = (label, to, last) => make("button", { type: "button", disabled: last ? "" : null, onclick: () => zoom(to) }, label);
      const parts = [crumb(both("whole"), -1, at < 0)];
      const first = Math.max(0, up.length - 6);
      up.slice(first).forEach((one, index, all) => parts.push(index || !first ? " › " : " … › ", crumb(ident(ids[one]), one, index === all.length - 1)));
      $("crumbs").replaceChildren(...parts);
      fillTable();
      draw();
    };
    const find = (id) => {
      const at = ids.indexOf(id);
      $("find-answer").replaceChildren(...(at < 0 ? [both("unknown")] : []));
      if (at < 0) return;
      // Each on the way stands in a list, which is shown as far as them; where that is too far, they are shown alone.
      const far = path(at).map((one) => [parents[one], children(parents[one]).indexOf(one) + 1]);
      if (far.some(([, place]) => place > FARTHEST)) {
        zoom(at);
      } else {
        for (const [above, place] of far) {
          opened.add(above);
          shown.set(above, Math.max(shown.get(above) || FIRST, place));
        }
        if (focus >= 0 && !(at >= focus && at < focus + people[focus])) zoom(-1);
        else fillTable();
      }
      select(at);
      const there = body.querySelector(`[data-at="${at}"]`);
      if (there) there.scrollIntoView({ block: "center" });
    };
    $("finder").addEventListener("submit", (event) => {
      event.preventDefault();
      find($("find").value.trim());
    });
    $("find").addEventListener("input", () => {
      const typed = $("find").value, found = [];
      for (let at = 0; at < total && typed && found.length < 12; at++) if (ids[at].startsWith(typed)) found.push(ids[at]);
      $("found").replaceChildren(...found.map((id) => make("option", { value: id })));
    });
    addEventListener("language", () => { fillTable(); draw(); });
    zoom(-1);
    root.dataset.ready = "tree";
  };
  // Two frames: the first one is on the screen by then.
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(start)));
})();
