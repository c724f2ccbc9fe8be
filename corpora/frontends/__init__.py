"""Front ends: conversion of recordings to frames, and back."""
