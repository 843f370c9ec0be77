"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const px = (number) => `${number}px`;

  /* Shows one cell of an image sheet as the background of an element. */
  const show = (element, sheet, number, scale) => {
    const column = number % sheet.columns, row = Math.floor(number / sheet.columns);
    element.style.backgroundSize = `${px(sheet.columns * sheet.width * scale)} auto`;
    element.style.backgroundPosition = `${px(-column * sheet.width * scale)} ${px(-row * sheet.height * scale)}`;
  };

  /* Sliders, or a pointer on the overview of all images, select which of the decoded images is shown. */
  const explore = (explorer) => {
    const { sheet, pairs, positions } = JSON.parse(explorer.dataset.explorer);
    const steps = positions.length, picture = explorer.querySelector(".seen"), contact = explorer.querySelector(".contact");
    const sliders = all("input", explorer), names = all(".direction", explorer), outputs = all("output", explorer);
    const choice = explorer.querySelector("select");
    const update = () => {
      const pair = choice ? Number(choice.value) : 0, [row, column] = sliders.map((slider) => Number(slider.value));
      const labels = [row, column].map((step) => `${positions[step] > 0 ? "+" : ""}${positions[step].toPrecision(2)} σ`);
      sliders.forEach((slider, number) => {
        names[number].textContent = pairs[pair][number];
        outputs[number].textContent = labels[number];
        slider.setAttribute("aria-valuetext", labels[number]);
      });
      show(picture, sheet, (pair * steps + row) * steps + column, sheet.scale);
      picture.setAttribute("aria-label", `Decoded latent code: ${pairs[pair][0]} ${labels[0]}, ${pairs[pair][1]} ${labels[1]}`);
      show(contact, sheet, pair * steps * steps, sheet.contact);
      contact.style.setProperty("--x", px(column * sheet.width * sheet.contact));
      contact.style.setProperty("--y", px(row * sheet.height * sheet.contact));
    };
    const select = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const box = contact.getBoundingClientRect();
      const step = (share) => Math.max(0, Math.min(steps - 1, Math.floor(share * steps)));
      sliders[0].value = step((event.clientY - box.top) / box.height);
      sliders[1].value = step((event.clientX - box.left) / box.width);
      update();
    };
    explorer.addEventListener("input", update);
    contact.addEventListener("pointerdown", select);
    contact.addEventListener("pointermove", select);
    update();
  };

  /* Radio buttons switch the view of a map; the names in a legend show and hide their renderers. */
  const choose = (figure, chart) => {
    all("input", figure).forEach((input) => input.addEventListener("change", () => {
      chart.renderers.forEach(({ glyph }) => glyph.setv({ x: { field: `x${input.value}` }, y: { field: `y${input.value}` } }));
      [chart.x_range, chart.y_range].forEach((range) => range.reset());
    }));
    all("button", figure).forEach((button) => button.addEventListener("click", () => {
      const visible = button.getAttribute("aria-pressed") !== "true";
      chart.renderers.filter(({ name }) => name === button.dataset.shows).forEach((renderer) => { renderer.visible = visible; });
      button.setAttribute("aria-pressed", visible);
    }));
  };

  const draw = async () => {
    const views = [];
    for (const place of all("[data-chart]")) {
      const item = JSON.parse(document.getElementById(place.dataset.chart).textContent);
      const { roots: [view] } = await Bokeh.embed.embed_item(item, place);
      views.push(view);
      choose(place.closest("figure"), view.model);
    }
    const redraw = () => views.forEach((view) => view.model.change.emit());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    document.documentElement.dataset.drawn = views.length;
  };

  all("[data-explorer]").forEach(explore);
  if (typeof Bokeh !== "undefined") draw();
})();
