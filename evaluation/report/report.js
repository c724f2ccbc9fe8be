"use strict";
// Players, dots, the sortable table and exports of the report. Nothing is loaded from elsewhere.
(() => {
  const meta = JSON.parse(document.getElementById("meta").textContent);
  const audible = new Set(meta.audible);
  const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  // ---- sounds: decoded when they are first needed, by one shared context

  let context = null;
  const decoded = new Map();
  function sound(utterance, source) {
    const key = `s${utterance}-${source}`;
    if (!decoded.has(key)) {
      const code = document.getElementById(key);
      context ??= new AudioContext();
      decoded.set(key, code ? context.decodeAudioData(bytes(code.textContent).buffer) : Promise.resolve(null));
    }
    return decoded.get(key);
  }

  // All versions of an utterance run at once, and the gain of one is 1: switching is instant and keeps the position.
  class Player {
    static playing = null;

    constructor(box, utterance, seconds) {
      this.box = box;
      this.utterance = utterance;
      this.seconds = seconds;
      this.offset = 0;
      this.nodes = null;
      this.source = 0;
      this.started = 0;
      this.button = box.querySelector(".play");
      this.time = box.querySelector(".time");
      this.loop = box.querySelector(".loop");
      this.versions = [...box.querySelectorAll(".version")];
      this.button.addEventListener("click", () => this.toggle());
      for (const version of this.versions) version.addEventListener("click", () => this.choose(+version.dataset.source));
      box.addEventListener("keydown", (event) => this.key(event));
      this.show();
    }

    get playing() { return this.nodes !== null; }

    get position() {
      return this.playing ? Math.min(this.offset + context.currentTime - this.started, this.seconds) : this.offset;
    }

    async play() {
      if (Player.playing && Player.playing !== this) Player.playing.pause();
      Player.playing = this;
      const sources = this.versions.map((version) => +version.dataset.source);
      const buffers = await Promise.all(sources.map((source) => sound(this.utterance, source)));
      await context.resume();
      if (this.playing || Player.playing !== this) return;
      if (this.offset >= this.seconds - 0.02) this.offset = 0;
      const at = context.currentTime + 0.03;
      this.nodes = new Map();
      buffers.forEach((buffer, i) => {
        if (!buffer) return;
        const node = context.createBufferSource(), gain = context.createGain();
        node.buffer = buffer;
        gain.gain.value = sources[i] === this.source ? 1 : 0;
        node.connect(gain).connect(context.destination);
        node.start(at, this.offset);
        this.nodes.set(sources[i], { node, gain });
      });
      this.started = at;
      this.show();
      this.frame();
    }

    pause() {
      if (!this.playing) return;
      this.offset = this.position;
      for (const { node } of this.nodes.values()) node.stop();
      this.nodes = null;
      this.show();
    }

    toggle() { return this.playing ? this.pause() : this.play(); }

    choose(source) {
      this.source = source;
      if (this.playing) {
        for (const [other, { gain }] of this.nodes) {
          gain.gain.setTargetAtTime(other === source ? 1 : 0, context.currentTime, 0.004);
        }
      }
      this.show();
    }

    seek(seconds) {
      const again = this.playing;
      this.pause();
      this.offset = Math.min(Math.max(seconds, 0), this.seconds);
      this.show();
      if (again) this.play();
    }

    frame() {
      if (!this.playing) return;
      if (this.position >= this.seconds) {
        this.pause();
        this.offset = 0;
        this.show();
        if (this.loop?.checked) this.play();
        return;
      }
      this.show();
      requestAnimationFrame(() => this.frame());
    }

    show() {
      const share = this.position / this.seconds;
      this.button.textContent = this.playing ? "\u275A\u275A" : "\u25B6";
      this.button.setAttribute("aria-label", this.playing ? "Pause" : "Play");
      this.time.textContent = `${this.position.toFixed(1)} / ${this.seconds.toFixed(1)} s`;
      for (const cursor of this.box.querySelectorAll(".cursor")) cursor.style.left = `${100 * share}%`;
      for (const version of this.versions) {
        const heard = +version.dataset.source === this.source;
        version.setAttribute("aria-checked", heard);
        version.tabIndex = heard ? 0 : -1;
      }
      for (const panel of this.box.querySelectorAll(".panel[data-source]")) {
        panel.classList.toggle("heard", +panel.dataset.source === this.source);
      }
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
      const version = /^[0-9]$/.test(event.key) ? this.versions[+event.key] : null;
      if (event.key === " " && !event.target.matches("button")) this.toggle();
      else if (version) this.choose(+version.dataset.source);
      else if (event.key === "ArrowLeft") this.seek(this.position - 0.5);
      else if (event.key === "ArrowRight") this.seek(this.position + 0.5);
      else if (event.key === "l" && this.loop) this.loop.checked = !this.loop.checked;
      else return;
      event.preventDefault();
    }
  }

  // ---- spectrograms: levels are read back from the colours of the pictures

  const palette = bytes(meta.palette);
  const levelOf = new Map();
  for (let i = 255; i >= 0; i--) levelOf.set((palette[3 * i] << 16) | (palette[3 * i + 1] << 8) | palette[3 * i + 2], i);

  async function levels(picture) {
    await picture.decode();
    const canvas = element("canvas", { width: picture.naturalWidth, height: picture.naturalHeight });
    const drawing = canvas.getContext("2d", { willReadFrequently: true });
    drawing.drawImage(picture, 0, 0);
    const { data } = drawing.getImageData(0, 0, canvas.width, canvas.height);
    const found = new Uint8Array(data.length / 4);
    for (let i = 0; i < found.length; i++) {
      found[i] = levelOf.get((data[4 * i] << 16) | (data[4 * i + 1] << 8) | data[4 * i + 2]) ?? 0;
    }
    return { width: canvas.width, height: canvas.height, found };
  }

  function colour(share) { // -1 blue, 0 white, 1 red
    const end = share < 0 ? [33, 102, 172] : [178, 24, 43], size = Math.min(Math.abs(share), 1);
    return end.map((value) => Math.round(247 + size * (value - 247)));
  }

  async function difference(box) {
    const picture = (source) => box.querySelector(`.panel[data-source="${source}"] img`);
    const canvas = box.querySelector(".difference canvas");
    const [one, other] = await Promise.all(
      [".first", ".second"].map((name) => levels(picture(box.querySelector(name).value))),
    );
    canvas.width = Math.min(one.width, other.width);
    canvas.height = Math.min(one.height, other.height);
    const drawing = canvas.getContext("2d"), image = drawing.createImageData(canvas.width, canvas.height);
    for (let y = 0; y < canvas.height; y++) {
      for (let x = 0; x < canvas.width; x++) {
        const a = one.found[y * one.width + x], b = other.found[y * other.width + x];
        const decibels = ((a - b) * meta.rangeDb) / 255;
        image.data.set([...colour(decibels / 30), 255], 4 * (y * canvas.width + x));
      }
    }
    drawing.putImageData(image, 0, 0);
    canvas.dataset.drawn = `${box.querySelector(".first").value}-${box.querySelector(".second").value}`;
  }

  const players = [...document.querySelectorAll("main .player")].map((box) => {
    const player = new Player(box, +box.dataset.utterance, +box.dataset.seconds);
    for (const picture of box.querySelectorAll(".picture")) {
      picture.addEventListener("click", (event) => {
        const { left, width } = picture.getBoundingClientRect();
        const source = picture.parentElement.dataset.source;
        if (source !== undefined) player.choose(+source);
        player.seek(((event.clientX - left) / width) * player.seconds);
        if (!player.playing) player.play();
      });
    }
    for (const select of box.querySelectorAll("select")) select.addEventListener("change", () => difference(box));
    return player;
  });
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((e) => e.isIntersecting)) {
      seen.unobserve(entry.target);
      difference(entry.target);
    }
  }, { rootMargin: "400px" });
  for (const player of players) seen.observe(player.box);
  addEventListener("beforeprint", () => players.forEach((player) => difference(player.box)));

  // ---- dots: the bar at the bottom plays an utterance of the table

  const bar = document.getElementById("bar");
  async function open(utterance, source) {
    Player.playing?.pause();
    const buffer = await sound(utterance, 0);
    if (!buffer) return;
    const versions = meta.sources.map((name, i) => ({ name, i })).filter(({ i }) => document.getElementById(`s${utterance}-${i}`));
    const box = element("div", { className: "player", tabIndex: 0 },
      element("h3", { textContent: meta.utterances[utterance].file }),
      element("div", { className: "controls" },
        element("button", { type: "button", className: "play" }),
        element("div", { className: "choice" }, ...versions.map(({ name, i }) => {
          const version = element("button", { type: "button", className: `version c${meta.colours[i] ?? ""}`, textContent: name });
          version.dataset.source = i;
          version.setAttribute("role", "radio");
          return version;
        })),
        element("output", { className: "time" }),
        element("button", { type: "button", className: "close", textContent: "Close", onclick: () => { player.pause(); bar.hidden = true; } }),
      ));
    bar.replaceChildren(box);
    bar.hidden = false;
    const player = new Player(box, utterance, buffer.duration);
    report.bar = player;
    player.choose(source);
    await player.play();
  }

  for (const strip of document.querySelectorAll(".strip")) {
    const dots = [...strip.querySelectorAll(".dot")];
    const source = +strip.parentElement.dataset.source;
    let at = -1;
    const mark = (i) => {
      dots[at]?.classList.remove("now");
      at = i;
      dots[at].classList.add("now");
      strip.setAttribute("aria-label", dots[at].textContent);
    };
    for (const [i, dot] of dots.entries()) {
      if (!audible.has(+dot.dataset.utterance)) continue;
      dot.classList.add("audible");
      dot.addEventListener("click", () => { mark(i); open(+dot.dataset.utterance, source); });
    }
    strip.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step && dots.length) mark(Math.min(Math.max(at + step, 0), dots.length - 1));
      else if (event.key === "Enter" && at >= 0 && dots[at].classList.contains("audible")) open(+dots[at].dataset.utterance, source);
      else return;
      event.preventDefault();
    });
  }

  // ---- table

  const table = document.getElementById("metrics");
  table?.querySelectorAll("thead th").forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const first = heading.dataset.better === "higher" ? "descending" : "ascending";
      const order = before === "none" ? first : before === "ascending" ? "descending" : "ascending";
      for (const other of table.querySelectorAll("thead th")) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", order);
      const body = table.tBodies[0], sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (column === 0 ? x.localeCompare(y) : x - y);
      });
      body.append(...rows);
    });
  });

  // ---- exports

  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", () => {
      const content = new Blob([document.getElementById(button.dataset.download).textContent], { type: "text/plain" });
      const link = element("a", { href: URL.createObjectURL(content), download: button.dataset.name });
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy).textContent;
      try {
        await navigator.clipboard.writeText(text);
      } catch { // pages from disk may not have the clipboard
        const area = element("textarea", { value: text });
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      const label = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = label; }, 1200);
    });
  }

  const report = { players, sound, bar: null };
  window.report = report;
})();
