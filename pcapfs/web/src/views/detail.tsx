// The frame around the details of what is selected in a list: a title, what one may do, parts as tabs.

import type { JSX } from "solid-js";
import { refine } from "../state/route.ts";
import { Tabs, type TabItem } from "../ui/parts.tsx";

export function Detail<Tab extends string>(props: {
  label: string;
  title: JSX.Element;
  /** Buttons, and what is wrong. */
  actions: JSX.Element;
  tabsLabel: string;
  tabs: readonly (TabItem & { id: Tab })[];
  tab: Tab;
  onTab: (tab: Tab) => void;
  /** What the tab shows. */
  children: JSX.Element;
}): JSX.Element {
  return (
    <section class="detail" aria-label={props.label}>
      <header class="detail-head">
        {props.title}
        <button
          type="button"
          class="button close"
          aria-label="Close the details"
          onClick={() => refine({ item: null })}
        >
          ✕
        </button>
      </header>
      {props.actions}
      <Tabs
        label={props.tabsLabel}
        current={props.tab}
        onChoose={(id) => props.onTab(id as Tab)}
        items={props.tabs}
      />
      <div role="tabpanel" class="tab-panel" aria-label={props.tab}>
        {props.children}
      </div>
    </section>
  );
}
