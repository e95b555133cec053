/* Apache ECharts 6.1.0 and ZRender, of which only what pytest-kvquant's pages use.
 * Licensed to the Apache Software Foundation (ASF) under one or more contributor license agreements.
 * Apache License, Version 2.0 (see LICENSE and NOTICE beside this file), with parts of d3 (LICENSE-d3)
 * and of ZRender, copyright Baidu Inc. (BSD-3-Clause, LICENSE-zrender). Changed: bundled and minified. */
