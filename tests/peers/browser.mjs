// Drives the receipt page in a real headless Chromium, by keyboard, and prints what a person would see, as JSON.
//
//   node browser.mjs PLAN.json        {"chromium", "page", "cases": [{"name", "receipt", "slip", "drop", "width", ...}]}
import fs from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const AXE = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const plan = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));

// Listens for as long as the page lives: playwright turns interception on in the background when the first listener
// is added, and a chooser that a key press opens before that is the browser's own, of which no event ever comes.
function choosers(page) {
  const [opened, waiting] = [[], []];
  page.on("filechooser", (chooser) => (waiting.length ? waiting.shift()(chooser) : opened.push(chooser)));
  return () => (opened.length ? Promise.resolve(opened.shift()) : new Promise((resolve) => waiting.push(resolve)));
}

async function chooseByKeyboard(page, nextChooser, id, file) {
  for (let presses = 0; presses < 20; presses++) {
    await page.keyboard.press("Tab");
    if ((await page.evaluate(() => document.activeElement.id)) === id) {
      await page.keyboard.press("Space");
      const late = new Promise((_, reject) => setTimeout(reject, 60000, new Error(`${id} opened no chooser`)).unref());
      const chooser = await Promise.race([nextChooser(), late]);
      await chooser.setFiles(file);
      return;
    }
  }
  throw new Error(`${id} cannot be reached with the Tab key`);
}

async function drop(page, files) {
  const contents = files.map((file) => ({ name: file.split("/").at(-1), data: fs.readFileSync(file).toString("base64") }));
  await page.evaluate((given) => {
    const carried = new DataTransfer();
    for (const { name, data } of given)
      carried.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name));
    document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: carried }));
  }, contents);
}

// Whether markup that got into the page could run, and whether a script that did run could reach out.
async function attack() {
  const refused = [];
  document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
  const attempt = async (name, what) => {
    try {
      await what();
    } catch {
      refused.push(name);
    }
  };
  await attempt("markup", () => (document.querySelector("#busy").innerHTML = "<img src=x onerror='window.ran = true'>"));
  await attempt("handler", () => document.body.setAttribute("onclick", "window.ran = true"));
  await attempt("fetch", () => fetch("https://receipt.example/"));
  await attempt("beacon", () => {
    const image = document.createElement("img");
    image.src = "https://receipt.example/?leak";
    document.body.append(image);
    const form = document.createElement("form");
    form.action = "https://receipt.example/";
    document.body.append(form);
    form.submit();
  });
  document.body.click();
  await new Promise((done) => setTimeout(done, 200));
  return { ran: window.ran === true, refused };
}

async function look(page, wanted) {
  const seen = await page.evaluate(() => ({
    heading: document.querySelector("#result h2")?.textContent ?? null,
    tone: document.querySelector("#result").className,
    focused: document.activeElement === document.querySelector("#result h2"),
    text: document.querySelector("#result").innerText,
    quorum: document.querySelector("#quorum").textContent,
    keys: [...document.querySelectorAll(".keys li")].map((item) => item.innerText),
    digests: document.querySelector("#digests").textContent,
    steps: Object.fromEntries([...document.querySelectorAll("#steps li")].map((item) => [item.dataset.step, item.className])),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    background: getComputedStyle(document.body).backgroundColor,
  }));
  if (wanted.axe) {
    await page.evaluate(AXE);
    const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    seen.violations = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`);
  }
  return seen;
}

const browser = await chromium.launch({ executablePath: plan.chromium, args: ["--no-sandbox"] });
const results = {};
for (const wanted of plan.cases) {
  const context = await browser.newContext({
    viewport: { width: wanted.width ?? 1000, height: wanted.height ?? 800 },
    colorScheme: wanted.dark ? "dark" : "light",
    reducedMotion: "reduce",
  });
  const page = await context.newPage();
  const nextChooser = choosers(page);
  const [errors, requests] = [[], []];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("request", (request) => /^(file|data):/.test(request.url()) || requests.push(request.url()));
  await page.goto(pathToFileURL(wanted.page ?? plan.page).href);
  if (wanted.print) await page.emulateMedia({ media: "print" });
  const settled = async (before) =>
    page.waitForFunction((old) => document.querySelector("#result").textContent !== old, before, { timeout: 60000 });
  const now = () => page.evaluate(() => document.querySelector("#result").textContent);
  if (wanted.drop) {
    const before = await now();
    await drop(page, wanted.drop);
    await settled(before);
  }
  for (const [id, file] of [["receipt-file", wanted.receipt], ["slip-file", wanted.slip]])
    if (file) {
      const before = await now();
      await chooseByKeyboard(page, nextChooser, id, file);
      await settled(before);
    }
  const seen = await look(page, wanted);
  if (wanted.screenshot)
    await page.screenshot({ path: wanted.screenshot, fullPage: wanted.fullPage ?? true });
  results[wanted.name] = { ...seen, errors: [...errors], requests: [...requests] };
  if (wanted.attack) results[wanted.name].attack = await page.evaluate(attack);
  await context.close();
}
await browser.close();
console.log(JSON.stringify(results));
