// Starts the page.

import { createEffect } from "solid-js";
import { render } from "solid-js/web";
import { App } from "./views/app.tsx";
import { applyTheme } from "./state/preferences.ts";
import { startSession } from "./state/session.ts";
import { forgetColors } from "./ui/canvas.ts";

const page = document.getElementById("page") ?? document.body;
page.textContent = "";
applyTheme();
render(() => {
  createEffect(() => {
    applyTheme();
    forgetColors();
  });
  startSession();
  return <App />;
}, page);
