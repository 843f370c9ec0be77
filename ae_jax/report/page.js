"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const px = (number) => `${number}px`;

  /* One cell of a sheet of pictures as the background of an element. */
  const show = (element, sheet, number, scale) => {
    const column = number % sheet.columns, row = Math.floor(number / sheet.columns);
    element.style.backgroundSize = `${px(sheet.columns * sheet.width * scale)} auto`;
    element.style.backgroundPosition = `${px(-column * sheet.width * scale)} ${px(-row * sheet.height * scale)}`;
  };

  /* Sliders choose which of the pictures decoded beforehand is seen; so does a pointer on the sheet of all of them. */
  const explore = (explorer) => {
    const { sheet, pairs, positions } = JSON.parse(explorer.dataset.explorer);
    const steps = positions.length, picture = explorer.querySelector(".seen"), contact = explorer.querySelector(".contact");
    const sliders = all("input", explorer), names = all(".direction", explorer), outputs = all("output", explorer);
    const choice = explorer.querySelector("select");
    const update = () => {
      const pair = choice ? Number(choice.value) : 0, [row, column] = sliders.map((slider) => Number(slider.value));
      const places = [row, column].map((step) => `${positions[step] > 0 ? "+" : ""}${positions[step].toPrecision(2)} σ`);
      sliders.forEach((slider, number) => {
        names[number].textContent = pairs[pair][number];
        outputs[number].textContent = places[number];
        slider.setAttribute("aria-valuetext", places[number]);
      });
      show(picture, sheet, (pair * steps + row) * steps + column, sheet.scale);
      picture.setAttribute("aria-label", `decoded at ${pairs[pair][0]} ${places[0]}, ${pairs[pair][1]} ${places[1]}`);
      show(contact, sheet, pair * steps * steps, sheet.contact);
      contact.style.setProperty("--x", px(column * sheet.width * sheet.contact));
      contact.style.setProperty("--y", px(row * sheet.height * sheet.contact));
    };
    const point = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const box = contact.getBoundingClientRect();
      const step = (share) => Math.max(0, Math.min(steps - 1, Math.floor(share * steps)));
      sliders[0].value = step((event.clientY - box.top) / box.height);
      sliders[1].value = step((event.clientX - box.left) / box.width);
      update();
    };
    explorer.addEventListener("input", update);
    contact.addEventListener("pointerdown", point);
    contact.addEventListener("pointermove", point);
    update();
  };

  /* A map is seen from several sides; of any chart names hide and show what they stand for. */
  const choose = (figure, chart) => {
    all("input", figure).forEach((input) => input.addEventListener("change", () => {
      chart.renderers.forEach(({ glyph }) => glyph.setv({ x: { field: `x${input.value}` }, y: { field: `y${input.value}` } }));
      [chart.x_range, chart.y_range].forEach((range) => range.reset());
    }));
    all("button", figure).forEach((button) => button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      chart.renderers.filter(({ name }) => name === button.dataset.shows).forEach((renderer) => { renderer.visible = shown; });
      button.setAttribute("aria-pressed", shown);
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
    const again = () => views.forEach((view) => view.model.change.emit());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    document.documentElement.dataset.drawn = views.length;
  };

  all("[data-explorer]").forEach(explore);
  if (typeof Bokeh !== "undefined") draw();
})();
